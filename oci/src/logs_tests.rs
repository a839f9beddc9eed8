#![allow(clippy::unwrap_used)]

use super::*;

const ALL: usize = usize::MAX;

struct Log(tempfile::TempDir);

impl Log {
    fn new(segments: &[(u64, &str)]) -> Log {
        let log = Log(tempfile::tempdir().unwrap());
        segments.iter().for_each(|&(offset, text)| log.put(offset, text));
        log
    }
    fn put(&self, offset: u64, text: &str) {
        fs::write(self.0.path().join(Stream::Stdout.segment(offset)), text).unwrap();
    }
    fn read(&self, from: From, most: usize) -> (u64, String, u64) {
        let chunk = read(self.0.path(), Stream::Stdout, from, most).unwrap();
        (chunk.offset, String::from_utf8(chunk.bytes).unwrap(), chunk.dropped)
    }
}

fn got(offset: u64, text: &str, dropped: u64) -> (u64, String, u64) {
    (offset, text.into(), dropped)
}

#[test]
fn a_stream_is_read_across_segments() {
    let log = Log::new(&[(0, "one\ntwo\n"), (8, "three\n"), (14, "fo")]);
    assert_eq!(log.read(From::Offset(0), ALL), got(0, "one\ntwo\nthree\nfo", 0));
    assert_eq!(log.read(From::Offset(5), 6), got(5, "wo\nthr", 0));
    assert_eq!(log.read(From::Offset(8), 2), got(8, "th", 0));
    assert_eq!(log.read(From::Offset(16), ALL), got(16, "", 0));
    log.put(14, "four\n");
    assert_eq!(log.read(From::Offset(16), ALL), got(16, "ur\n", 0));
    assert_eq!(log.read(From::Offset(0), 0), got(0, "", 0));
}

#[test]
fn what_is_gone_is_counted() {
    let log = Log::new(&[(100, "abc"), (110, "def"), (113, "g")]);
    assert_eq!(log.read(From::Offset(0), ALL), got(100, "abc", 100));
    assert_eq!(log.read(From::Offset(103), ALL), got(110, "defg", 7), "a gap that a full disk has left");
    assert_eq!(log.read(From::Offset(105), ALL), got(110, "defg", 5));
    assert_eq!(log.read(From::Offset(110), ALL), got(110, "defg", 0));
}

#[test]
fn tails() {
    let log = Log::new(&[(10, "a\nb\n"), (14, "c\nd"), (17, "d\n")]);
    assert_eq!(log.read(From::Tail(1), ALL), got(16, "dd\n", 0));
    assert_eq!(log.read(From::Tail(2), ALL), got(14, "c\ndd\n", 0));
    assert_eq!(log.read(From::Tail(3), ALL), got(12, "b\nc\ndd\n", 0));
    assert_eq!(log.read(From::Tail(99), ALL), got(10, "a\nb\nc\ndd\n", 0));
    assert_eq!(log.read(From::Tail(0), ALL), got(19, "", 0));
    log.put(19, "unfinished");
    assert_eq!(log.read(From::Tail(1), ALL), got(19, "unfinished", 0));
    assert_eq!(log.read(From::Tail(2), ALL), got(16, "dd\nunfinished", 0));
    let long = "x".repeat(200_000);
    let log = Log::new(&[(0, &format!("first\n{long}\nlast\n"))]);
    assert_eq!(log.read(From::Tail(2), ALL), got(6, &format!("{long}\nlast\n"), 0));
}

#[test]
fn no_log_is_an_empty_log_and_other_files_are_none_of_it() {
    let none = read(Path::new("/nonexistent"), Stream::Stdout, From::Tail(5), ALL).unwrap();
    assert_eq!((none.offset, none.bytes.len(), none.dropped), (0, 0, 0));
    let log = Log::new(&[]);
    fs::write(log.0.path().join("stdout.txt"), "x").unwrap();
    fs::write(log.0.path().join(Stream::Stderr.segment(0)), "err").unwrap();
    assert_eq!(log.read(From::Offset(0), ALL), got(0, "", 0));
    let [out, err] = read_both(log.0.path(), [From::Offset(0); 2], ALL).unwrap();
    assert_eq!((out.bytes.len(), err.bytes.as_slice()), (0, b"err".as_slice()));
    assert_eq!(err.next(), From::Offset(3));
}
