//! What the fuzzer found, and messages as they are sent, read again; and then slightly damaged.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../fuzz/receive.rs"]
mod receive;

use std::{fs, path::Path};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/wire");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    corpus().iter().for_each(|bytes| receive::receive(bytes));
}

#[test]
fn damaged_messages_are_read_without_a_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for bytes in corpus() {
        for _ in 0..400 {
            let mut bytes = bytes.clone();
            for _ in 0..1 + rng.next_u32() % 3 {
                let at = rng.next_u32() as usize % bytes.len().max(1);
                match rng.next_u32() % 3 {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at.min(bytes.len()), rng.next_u32() as u8),
                    _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = rng.next_u32() as u8),
                }
            }
            receive::receive(&bytes);
        }
    }
}
