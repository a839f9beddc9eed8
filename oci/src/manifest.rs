//! What a registry gives for a name: one image, or an index of one image's variants for several platforms.

use crate::content::documents::{Index, Manifest, Platform, is_index, is_manifest};
use crate::digest::Digest;
use crate::platform;

/// Which manifest is meant on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meant {
    /// The document itself.
    This,
    /// Another, perhaps an index again.
    Other(Digest),
}

/// A document that leads to no image for this machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it has no variant for this machine ({wanted}); there is {available}")]
    NoPlatform { wanted: String, available: String },
    #[error("its manifest is of the type {0:?}, which is no image")]
    MediaType(String),
    #[error("its manifest is in schema version 1, which registries gave up in 2015: push the image anew")]
    Schema1,
    #[error("its manifest cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// What the document says of itself. Older ones leave the type out.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index.
pub fn meant(document: &[u8]) -> Result<Meant, Error> {
    let about: About = serde_json::from_slice(document)?;
    if about.schema_version == 1 {
        return Err(Error::Schema1);
    }
    let index = match &about.media_type {
        Some(media_type) if is_index(media_type) => true,
        Some(media_type) if is_manifest(media_type) => false,
        Some(media_type) => return Err(Error::MediaType(media_type.clone())),
        None => about.manifests.is_some(),
    };
    if !index {
        serde_json::from_slice::<Manifest>(document)?;
        return Ok(Meant::This);
    }
    let index: Index = serde_json::from_slice(document)?;
    let unnamed = || Platform { architecture: "unknown".into(), os: "unknown".into(), variant: None };
    let candidates: Vec<(Platform, Digest)> = index
        .manifests
        .into_iter()
        .filter(|entry| is_manifest(&entry.media_type) || is_index(&entry.media_type))
        .map(|entry| (entry.platform.unwrap_or_else(unnamed), entry.digest))
        .collect();
    match (platform::best(&candidates), candidates.as_slice()) {
        (Some(digest), _) => Ok(Meant::Other(*digest)),
        // The only one, and nothing said about it: its config will tell.
        (None, [(platform, digest)]) if *platform == unnamed() => Ok(Meant::Other(*digest)),
        _ => Err(Error::NoPlatform {
            wanted: platform::own(),
            available: platform::listed(candidates.iter().map(|(platform, _)| platform)),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn entry(arch: &str, seed: u8) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&[seed]).to_string(), "size": 7,
            "platform": {"architecture": arch, "os": "linux"},
        })
    }

    fn read(document: Value) -> Result<Meant, Error> {
        meant(document.to_string().as_bytes())
    }

    #[test]
    fn an_index_leads_to_this_machines_variant() {
        let index =
            json!({"schemaVersion": 2, "manifests": [entry("s390x", 1), entry(platform::architecture(), 2)]});
        assert_eq!(read(index).unwrap(), Meant::Other(Digest::of(&[2])));
        let index = json!({"schemaVersion": 2, "manifests": [entry("s390x", 1), entry("arm", 2)]});
        let why = read(index).unwrap_err().to_string();
        assert!(why.ends_with("there is linux/arm, linux/s390x"), "{why}");
    }

    #[test]
    fn what_is_no_image_says_so() {
        let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"").to_string(), "size": 0});
        assert_eq!(read(json!({"schemaVersion": 2, "config": config, "layers": []})).unwrap(), Meant::This);
        assert!(matches!(read(json!({"schemaVersion": 1})), Err(Error::Schema1)));
        assert!(matches!(
            read(json!({"schemaVersion": 2, "mediaType": "text/plain"})),
            Err(Error::MediaType(_))
        ));
        assert!(matches!(read(json!([])), Err(Error::Unreadable(_))));
    }
}
