//! The process inside the container: its own streams are the ends of pipes to the agent.

use std::fs::File;
use std::io::{self, Write as _};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;

use super::chunks::Chunks;
use super::{Told, pack, unpack};
use crate::bundle::Failure;
use crate::exec::message::Work;

/// Does it and ends the process.
pub(crate) fn work(work: &Work, owner: (u32, u32)) -> ! {
    let done = match work {
        Work::Send(path) => pack(path, &mut *stream(1), &mut |_| {}),
        Work::Receive(to) => unpack(Chunks::new(&*stream(0)), to, Some(owner), &mut |_| {}),
        Work::Program(_) => Err(super::Error::Empty),
    };
    let (told, code) = match done {
        Ok(copied) => (Told::Done(copied), 0),
        Err(error) => (Told::Failed(failure(work, &error)), 1),
    };
    if let Ok(text) = serde_json::to_vec(&told) {
        let _ = stream(2).write_all(&text);
    }
    // SAFETY: ends this process without running anything else of its parent's.
    unsafe { libc::_exit(code) }
}

fn failure(work: &Work, error: &super::Error) -> Failure {
    let what = match work {
        Work::Send(path) => format!("copy {} out of the container", path.display()),
        Work::Receive(to) => format!("copy to {} in the container", to.path().display()),
        Work::Program(_) => String::new(),
    };
    let hint = match error {
        super::Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            "covey exec JOB/I -- ls -la shows what is there"
        }
        super::Error::Io { source, .. } if source.raw_os_error() == Some(libc::ENOSPC) => {
            "the task's disk is full"
        }
        _ => "",
    };
    Failure { what, why: error.to_string(), hint: hint.into() }
}

/// A standard stream, which nobody owns.
fn stream(number: i32) -> ManuallyDrop<File> {
    // SAFETY: the three are open for as long as the process lives; this handle never closes one.
    ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}
