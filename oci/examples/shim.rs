//! The shim alone: what `covey shim` does, for the tests of this crate, which have no `covey`.

fn main() -> std::process::ExitCode {
    oci::shim::main(std::env::args_os().skip(2))
}
