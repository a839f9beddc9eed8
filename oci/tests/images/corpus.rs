//! The fuzzer's corpus, replayed, and layers near it: whatever the bytes, reading ends and writing stays inside.

use std::fs;
use std::path::Path;

use oci::layers::{Limits, read_through};

use crate::support::unpack;

const LIMITS: Limits = Limits { bytes: 1 << 20, entries: 1000, path: 4095, xattrs: 4096 };

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/layer");
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// Unpacks for real, beside a file that must stay as it is.
fn unpack_beside_a_sentinel(what: &str, bytes: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sentinel"), "untouched").unwrap();
    let result = unpack(dir.path(), bytes, &[], &LIMITS);
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blob1", "layer1", "sentinel"], "{what}");
    assert_eq!(fs::read_to_string(dir.path().join("sentinel")).unwrap(), "untouched", "{what}");
    result.map(drop).map_err(|error| error.fault.to_string())
}

#[test]
fn the_corpus_reads_as_it_always_did() {
    let mut golden = String::new();
    for (name, bytes) in corpus() {
        let read = match read_through(&bytes, &LIMITS) {
            Ok(entries) => format!("{entries} entries"),
            Err(fault) => fault.to_string(),
        };
        let unpacked = unpack_beside_a_sentinel(&name, &bytes).err().unwrap_or_else(|| "unpacked".into());
        golden += &format!("{name}: {read}; {unpacked}\n");
    }
    assert_eq!(golden, include_str!("corpus.golden"));
}

#[test]
fn neighbours_of_the_corpus_do_no_harm() {
    // The same numbers each time (xorshift64): a failure can be repeated.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let corpus = corpus();
    let (mut sound, mut refused) = (0, 0);
    for round in 0..4000 {
        let (name, bytes) = &corpus[random(corpus.len())];
        let mut bytes = bytes.clone();
        match random(4) {
            0 => bytes.truncate(random(bytes.len())),
            // Half of one archive, then half of another.
            1 => {
                let other = &corpus[random(corpus.len())].1;
                bytes.truncate(512 * random(bytes.len() / 512 + 1));
                bytes.extend(&other[512 * random(other.len() / 512 + 1)..]);
            }
            _ => {
                for _ in 0..1 + random(3) {
                    let at = random(bytes.len());
                    bytes[at] = [0, b'/', b'.', b'0', b'7', 0x80, 0xff, b'L'][random(8)];
                    // Right checksums let the change through to what is behind them.
                    fix_checksum(&mut bytes, at / 512 * 512);
                }
            }
        }
        match read_through(&bytes, &LIMITS) {
            Ok(_) => sound += 1,
            Err(_) => refused += 1,
        }
        if round % 20 == 0 {
            let _ = unpack_beside_a_sentinel(name, &bytes);
        }
    }
    assert!(sound > 100 && refused > 100, "{sound} sound, {refused} refused");
}

fn fix_checksum(bytes: &mut [u8], block: usize) {
    if let Some(block) = bytes.get_mut(block..block + 512) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
