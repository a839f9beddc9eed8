//! An OCI layout of `hello:1`, made from the built binary: an image of one static file. `covey dev` brings its own; an
//! agent that is started otherwise is given this one, and so are the peers that it is compared with.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The name under which it is loaded.
pub const HELLO: &str = "hello:1";

/// Writes the layout to the directory `to`, which is made. The layer is the same bytes for the same binary.
///
/// # Errors
/// When the binary cannot be read or the layout not be written.
pub fn hello_layout(covey: &Path, to: &Path) -> Result<()> {
    let blobs = to.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::file("make", &blobs))?;
    let layer = layer(covey)?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": ["/hello"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let layer = blob(&blobs, "application/vnd.oci.image.layer.v1.tar", &layer)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut manifest =
        blob(&blobs, "application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes())?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": HELLO });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    write(&to.join("index.json"), index.to_string().as_bytes())?;
    write(&to.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
}

/// A tar archive of `/hello` alone.
fn layer(covey: &Path) -> Result<Vec<u8>> {
    let binary = fs::read(covey).map_err(Error::file("read", covey))?;
    let mut header = tar::Header::new_ustar();
    header.set_size(binary.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_data(&mut header, "hello", binary.as_slice())
        .and_then(|()| archive.into_inner())
        .map_err(Error::file("pack", covey))
}

/// Stores the bytes under their digest and returns their descriptor.
fn blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    write(&blobs.join(digest.trim_start_matches("sha256:")), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_layout_refers_to_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("covey");
        fs::write(&binary, "a program").unwrap();
        let layout = directory.path().join("layout");
        hello_layout(&binary, &layout).unwrap();
        let read =
            |path: &str| -> Value { serde_json::from_slice(&fs::read(layout.join(path)).unwrap()).unwrap() };
        let path = |descriptor: &Value| {
            format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"))
        };
        let manifest = read(&path(&read("index.json")["manifests"][0]));
        let config = read(&path(&manifest["config"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = fs::read(layout.join(path(&manifest["layers"][0]))).unwrap();
        assert_eq!(digest(&layer), manifest["layers"][0]["digest"].as_str().unwrap());
        assert_eq!(layer.len() as u64, manifest["layers"][0]["size"].as_u64().unwrap());
    }
}
