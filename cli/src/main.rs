//! The `covey` binary: agent, CLI, shim and (under the name `hello`) the server of the image `hello:1`.

use std::{env, ffi::OsStr, path::Path, process::ExitCode};

mod hello;

fn main() -> ExitCode {
    // Before any thread, and before anything that costs time: each container's start comes through here.
    let name = env::args_os().next();
    if name.as_deref().map(Path::new).and_then(Path::file_name) == Some(OsStr::new("hello")) {
        return hello::main();
    }
    if name.as_deref() == Some(OsStr::new(oci::supervisor::PATH)) {
        return oci::supervisor::main(env::args_os().skip(1));
    }
    if env::args_os().nth(1).as_deref() == Some(OsStr::new("shim")) {
        return oci::shim::main(env::args_os().skip(2));
    }
    cli::main(env::args_os())
}
