//! Images to load: layers of incompressible bytes.

use std::{fs, path::Path};

use oci::{digest::Digest, layout};
use serde_json::{Value, json};

use crate::node::Node;

/// An image with a layer of each of these sizes; the same `seed` gives the same bytes.
pub(crate) fn load(node: &Node, name: &str, seed: u64, layers: &[usize]) -> Digest {
    let dir = tempfile::tempdir().unwrap();
    let layers: Vec<Vec<u8>> =
        (seed..).zip(layers).map(|(seed, size)| archive("data", &noise(seed, *size))).collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let layer = |bytes: &Vec<u8>| blob(dir.path(), "layer.v1.tar", bytes);
    let config = blob(dir.path(), "config.v1+json", config.to_string().as_bytes());
    let layers: Vec<Value> = layers.iter().map(layer).collect();
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
    let manifest = blob(dir.path(), "manifest.v1+json", manifest.as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
    let name = name.parse().unwrap();
    let store = node.images.store();
    let loaded = layout::load(store, dir.path(), Some(&name), &mut |_, _| {}).unwrap();
    loaded[0].digest
}

fn blob(dir: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    let path = dir.join("blobs/sha256");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join(digest.hex()), bytes).unwrap();
    let media_type = format!("application/vnd.oci.image.{media_type}");
    json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
}

/// xorshift64*: the quality does not matter, only that every layer differs.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// A tar archive of one file (POSIX ustar).
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend(content);
    archive.resize(archive.len().div_ceil(512) * 512 + 1024, 0);
    archive
}
