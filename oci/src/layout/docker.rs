//! What `docker save` wrote before it wrote OCI layouts: manifest.json lists configs and layers by file name.

use std::io::{self, Read};

use serde::Deserialize;

use super::files::Files;
use super::{Error, Found, check};
use crate::content::documents::{CONFIG, Descriptor, ImageConfig, LAYER_TAR, MANIFEST, Manifest};
use crate::digest::{Digest, Hasher};
use crate::reference::Reference;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

pub(super) fn images(files: &Files, name: Option<&Reference>) -> Result<Vec<Found>, Error> {
    let bytes = files.read("manifest.json", "the archive")?;
    let entries: Vec<Entry> = files.parse("manifest.json", &bytes)?;
    if name.is_some() && entries.len() > 1 {
        let names = entries.iter().flat_map(|entry| entry.repo_tags.iter().flatten().cloned()).collect();
        return Err(Error::ManyImages { path: files.path.clone(), names });
    }
    entries.into_iter().map(|entry| image(files, entry, name)).collect()
}

fn image(files: &Files, entry: Entry, name: Option<&Reference>) -> Result<Found, Error> {
    let path = || files.path.clone();
    let names = match name {
        Some(name) => vec![name.clone()],
        None => {
            let tags = entry.repo_tags.unwrap_or_default();
            let names = tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<Reference>, _>>();
            names.map_err(|source| Error::Name { path: path(), source })?
        }
    };
    if names.is_empty() {
        return Err(Error::NoName { path: path(), tag: String::new() });
    }
    let config_bytes = files.read(&entry.config, "manifest.json")?;
    let config: ImageConfig = files.parse(&entry.config, &config_bytes)?;
    let layers = entry.layers.iter().map(|layer| describe(files, layer)).collect::<Result<Vec<_>, _>>()?;
    // The archive has no manifest of the kind that has a digest: this is the one that it stands for.
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MANIFEST.into()),
        config: descriptor(CONFIG, Digest::of(&config_bytes), config_bytes.len() as u64),
        layers,
    };
    let manifest_bytes = serde_json::to_vec(&manifest).map_err(|source| Error::Document {
        path: path(),
        file: "manifest.json".into(),
        source,
    })?;
    let digest = Digest::of(&manifest_bytes);
    check(files, &digest, &manifest, &config)?;
    Ok(Found { names, digest, manifest_bytes, config_bytes, manifest, layer_files: entry.layers })
}

/// Layers have no digest in such an archive; that they are what the config's diff ids say is verified as they are
/// unpacked.
fn describe(files: &Files, layer: &str) -> Result<Descriptor, Error> {
    let (file, size) = files.open_file(layer, "manifest.json")?;
    let mut hasher = Hasher::default();
    let copied = io::copy(&mut file.take(size), &mut hasher);
    copied.map_err(|source| Error::Io { doing: "read", path: files.path.join(layer), source })?;
    let (digest, found) = hasher.finish();
    if found < size {
        return Err(Error::Truncated { path: files.path.clone(), file: layer.into() });
    }
    Ok(descriptor(LAYER_TAR, digest, size))
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    let media_type = media_type.to_owned();
    Descriptor { media_type, digest, size, platform: None, annotations: Default::default() }
}
