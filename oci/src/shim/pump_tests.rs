//! The waiter's pump, read back with what reads logs.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use waiter::pump::Pump;

use crate::bundle::Stream;
use crate::logs::{self, Chunk, From};

const CAP: u64 = 8 * 1000;

/// The stdout of the bundle in `dir`.
struct Log {
    pump: Pump,
    writer: Option<File>,
    _open: (OwnedFd, File),
}

impl Log {
    fn new(dir: &Path) -> Log {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        fcntl(read.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let dir = File::open(dir).unwrap();
        let mut pump = Pump::new(b"stdout", read.as_raw_fd(), dir.as_raw_fd());
        pump.bound(CAP);
        Log { pump, writer: Some(write.into()), _open: (read, dir) }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.writer.as_mut().unwrap().write_all(bytes).unwrap();
        while self.pump.step() {}
    }
}

/// What it has stored.
fn stored(dir: &Path, from: From) -> Chunk {
    logs::read(&dir.join("log"), Stream::Stdout, from, usize::MAX).unwrap()
}

fn used(dir: &Path) -> u64 {
    fs::read_dir(dir.join("log")).unwrap().flatten().map(|e| e.metadata().unwrap().len()).sum()
}

/// Every byte tells its offset: the n-th is n modulo a prime.
fn bytes(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|n| (n % 251) as u8).collect()
}

#[test]
fn segments_rotate_below_the_cap_and_offsets_stay() {
    for splices in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::new(dir.path());
        if !splices {
            log.pump.without_splice();
        }
        let mut written = 0;
        for length in (1..200).map(|i| i * 7) {
            log.say(&bytes(written, length));
            written += length as u64;
            assert!(used(dir.path()) <= CAP);
            let chunk = stored(dir.path(), From::Offset(0));
            assert_eq!(chunk.offset + chunk.bytes.len() as u64, written);
            assert_eq!(chunk.bytes, bytes(chunk.offset, chunk.bytes.len()));
            assert_eq!(chunk.offset, chunk.dropped);
            assert!(chunk.bytes.len() as u64 > (CAP * 3 / 4).min(written - 1), "most of the cap is used");
        }
        assert_eq!(log.pump.lost(), 0);
        log.writer = None;
        assert!(!log.pump.step());
        assert!(log.pump.pipe() < 0);
    }
}

#[test]
fn a_stream_that_says_nothing_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = Log::new(dir.path());
    assert!(!log.pump.step() && log.pump.pipe() >= 0);
    log.writer = None;
    assert!(!log.pump.step() && log.pump.pipe() < 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Often enough for the short segments between gaps to become many.
#[test]
fn bytes_that_cannot_be_stored_leave_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    // Each segment cannot be begun while a directory of its name is in the way.
    let mut log = Log::new(dir.path());
    let (mut offset, mut lost) = (0, 0);
    for round in 0..40u64 {
        log.say(b"kept ");
        offset += 5;
        let way = dir.path().join("log").join(Stream::Stdout.segment(offset));
        fs::create_dir(&way).unwrap();
        log.pump.close_segment();
        log.say(b"lost ");
        fs::remove_dir(&way).unwrap();
        offset += 5;
        lost += 5;
        assert_eq!(log.pump.lost(), lost);
        assert!(fs::read_dir(dir.path().join("log")).unwrap().count() <= 16, "{round}");
    }
    log.say(b"kept again");
    let whole = stored(dir.path(), From::Offset(offset - 10));
    assert_eq!((whole.offset, whole.bytes.as_slice()), (offset - 10, b"kept ".as_slice()));
    let last = stored(dir.path(), whole.next());
    assert_eq!((last.offset, last.bytes.as_slice(), last.dropped), (offset, b"kept again".as_slice(), 5));
}

#[test]
fn what_the_waiter_writes_reads_as_an_exit_record() {
    let read = |status| {
        let record = waiter::record::Record { status, finished_at_ms: 1_700_000_000_500, log_bytes_lost: 0 };
        let mut text = waiter::record::Text::new();
        record.json(&mut text);
        serde_json::from_slice::<crate::bundle::ExitRecord>(text.bytes()).unwrap()
    };
    let (ended, killed) = (read(7 << 8), read(9));
    assert_eq!((ended.version, ended.code, ended.signal), (crate::bundle::VERSION, Some(7), None));
    assert_eq!((ended.finished_at_ms, ended.log_bytes_lost, ended.error), (1_700_000_000_500, 0, None));
    assert_eq!((killed.code, killed.signal), (None, Some(9)));
    assert_eq!(read(0).code, Some(0));
    // With a core dump, which sets another bit.
    assert_eq!(read(0x80 | 6).signal, Some(6));
}
