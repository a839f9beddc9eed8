//! The JSON documents of the OCI image specification, as far as they are read here.
//! Unknown fields are ignored, as the specification asks.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::Digest;

/// Largest index, manifest or config that is read; real ones have a few KiB.
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;

/// Most lower layers of an overlay: OVL_MAX_STACK of Linux.
pub(crate) const LAYERS_MAX: usize = 500;

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";

pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | "application/vnd.docker.distribution.manifest.list.v2+json")
}

pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | "application/vnd.docker.distribution.manifest.v2+json")
}

pub(crate) fn is_config(media_type: &str) -> bool {
    matches!(media_type, CONFIG | "application/vnd.docker.container.image.v1+json")
}

/// Whether layers of that type can be unpacked. How they are compressed is read from their first bytes.
pub(crate) fn is_layer(media_type: &str) -> bool {
    let rest =
        ["application/vnd.oci.image.layer.v1.", "application/vnd.oci.image.layer.nondistributable.v1."]
            .iter()
            .find_map(|prefix| media_type.strip_prefix(prefix));
    matches!(rest, Some("tar" | "tar+gzip" | "tar+zstd"))
        || matches!(
            media_type,
            "application/vnd.docker.image.rootfs.diff.tar"
                | "application/vnd.docker.image.rootfs.diff.tar.gzip"
                | "application/vnd.docker.image.rootfs.diff.tar.zstd"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        )
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// The blobs that the manifest names.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: Option<RunConfig>,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) diff_ids: Vec<Digest>,
}

/// The `config` object. Docker writes `null` for what is empty.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RunConfig {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) working_dir: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) user: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) volumes: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal: Option<String>,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
