//! What goes both ways on a way into a task, frozen. `UPDATE=1` rewrites the golden file.
#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::PathBuf};

use gossip::{
    frame::FrameError,
    wire::stream::{self, MOST, Part, Parts, TerminalSize},
};
use placement::ledger::Refusal;
use serde_json::json;

fn parts() -> Vec<Part> {
    vec![
        Part::In(b"ls\n".to_vec()),
        Part::InEnd,
        Part::Resize(TerminalSize { rows: 24, columns: 80 }),
        Part::Signal(2),
        Part::Out(vec![0, 255]),
        Part::Err(Vec::new()),
        Part::OutEnd,
        Part::Taken(65_536),
        Part::End(json!({"code": 0, "signal": null})),
        Part::Failed(Refusal::new("not_found", "it is gone", Some("look again"))),
    ]
}

#[test]
fn the_encoding_is_as_it_was() {
    let mut now = String::new();
    for part in parts() {
        let hex: String = part.encode().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(now, "{hex}").unwrap();
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/stream.hex");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &now).unwrap();
    }
    assert_eq!(now, fs::read_to_string(path).unwrap());
}

#[tokio::test]
async fn parts_come_back_whole_and_unknown_ones_are_passed_over() {
    let mut bytes = vec![200, 0, 0, 0, 2, 1, 2];
    for part in parts() {
        stream::write(&mut bytes, &part).await.unwrap();
    }
    bytes.extend([99, 0, 0, 0, 0]);
    let mut read = Parts::new(bytes.as_slice());
    for part in parts() {
        assert_eq!(read.next().await.unwrap(), Some(part));
    }
    assert_eq!(read.next().await.unwrap(), None);

    for cut in [1, 4, 6] {
        let mut read = Parts::new(&bytes[..cut]);
        assert!(matches!(read.next().await, Err(FrameError::Broken(_))), "cut at {cut}");
    }
    let long = [&[1_u8][..], &(MOST as u32 + 1).to_be_bytes()].concat();
    assert!(matches!(Parts::new(long.as_slice()).next().await, Err(FrameError::TooLong(_))));
    assert!(matches!(Part::Out(vec![0; MOST + 1]).encode(), Err(FrameError::TooLong(_))));
    for garbled in [&[4_u8, 0, 0, 0, 0][..], &[19, 0, 0, 0, 1, 7], &[20, 0, 0, 0, 1, b'{']] {
        assert!(matches!(Parts::new(garbled).next().await, Err(FrameError::Garbled(_))), "{garbled:?}");
    }
}
