//! The `covey` binary: agent, CLI, shim and (under the name `hello`) the server of the image `hello:1`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

mod hello;

fn main() -> ExitCode {
    let name = std::env::args_os().next();
    if name.as_deref().map(Path::new).and_then(Path::file_name) == Some(OsStr::new("hello")) {
        return hello::main();
    }
    cli::main(std::env::args_os())
}
