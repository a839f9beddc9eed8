#![allow(clippy::unwrap_used)]

use super::*;
use crate::logs::{self, From};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

const CAP: u64 = 8 * 1000;

fn pump(dir: &std::path::Path) -> (Pump, File) {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(read.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    (Pump::new(Stream::Stdout, read, dir.into(), CAP), write.into())
}

fn used(dir: &std::path::Path) -> u64 {
    fs::read_dir(dir).unwrap().flatten().map(|e| e.metadata().unwrap().len()).sum()
}

/// Every byte tells its offset: the n-th is n modulo a prime.
fn bytes(from: u64, length: usize) -> Vec<u8> {
    (from..from + length as u64).map(|n| (n % 251) as u8).collect()
}

#[test]
fn segments_rotate_below_the_cap_and_offsets_stay() {
    for splices in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (mut pump, mut writer) = pump(dir.path());
        pump.splices = splices;
        let mut written = 0;
        for length in (1..200).map(|i| i * 7) {
            writer.write_all(&bytes(written, length)).unwrap();
            written += length as u64;
            while pump.step() {}
            assert!(used(dir.path()) <= CAP);
            let chunk = logs::read(dir.path(), Stream::Stdout, From::Offset(0), usize::MAX).unwrap();
            assert_eq!(chunk.offset + chunk.bytes.len() as u64, written);
            assert_eq!(chunk.bytes, bytes(chunk.offset, chunk.bytes.len()));
            assert_eq!(chunk.offset, chunk.dropped);
            assert!(chunk.bytes.len() as u64 > (CAP * 3 / 4).min(written - 1), "most of the cap is used");
        }
        assert!(pump.splices == splices && pump.lost() == 0);
        drop(writer);
        assert!(!pump.step());
        assert!(pump.pipe().is_none());
    }
}

#[test]
fn a_stream_that_says_nothing_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut pump, writer) = pump(dir.path());
    assert!(!pump.step() && pump.pipe().is_some());
    drop(writer);
    assert!(!pump.step() && pump.pipe().is_none());
    assert_eq!(used(dir.path()), 0);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn bytes_that_cannot_be_stored_leave_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    fs::create_dir(&log).unwrap();
    let (mut pump, mut writer) = pump(&log);
    let mut say = |pump: &mut Pump, text: &str| {
        writer.write_all(text.as_bytes()).unwrap();
        while pump.step() {}
    };
    say(&mut pump, "kept ");
    // The segment in use is taken away together with the directory: what it cannot begin anew is lost.
    fs::rename(&log, dir.path().join("away")).unwrap();
    pump.close_segment();
    say(&mut pump, "lost ");
    fs::rename(dir.path().join("away"), &log).unwrap();
    say(&mut pump, "kept again");
    assert_eq!(pump.lost(), 5);
    let first = logs::read(&log, Stream::Stdout, From::Offset(0), usize::MAX).unwrap();
    assert_eq!((first.offset, first.bytes.as_slice()), (0, b"kept ".as_slice()));
    let second = logs::read(&log, Stream::Stdout, first.next(), usize::MAX).unwrap();
    assert_eq!((second.offset, second.bytes.as_slice(), second.dropped), (10, b"kept again".as_slice(), 5));
}
