//! What `covey` does with this crate, for its tests, which have no `covey`: `shim ARGS`, `capacity`, and by the name
//! `probe` what a container tries.

mod probe;

use std::ffi::OsStr;
use std::path::Path;

fn main() -> std::process::ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == oci::supervisor::PATH) {
        return oci::supervisor::main(std::env::args_os().skip(1));
    }
    let mut args = std::env::args_os();
    if args.next().as_deref().map(Path::new).and_then(Path::file_name) == Some(OsStr::new("probe")) {
        probe::main();
        return 0.into();
    }
    if args.next().is_some_and(|verb| verb == "capacity") {
        let (tree, warnings) = oci::cgroup::Tree::open("capacity");
        let capacity = tree.capacity();
        println!("{} {} {}", capacity.cpu_milli, capacity.memory_bytes, warnings.len());
        return if tree.clear().is_ok() { 0.into() } else { 1.into() };
    }
    oci::shim::main(args)
}
