//! What nodes ask each other about images. Bytes of blobs follow their frame raw: JSON would treble them.

use serde::{Deserialize, Serialize};

use super::Secret;

/// One question about images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageQuestion {
    /// Which of these blobs are here? Answered by `Held`.
    Have { digests: Vec<String> },
    /// The bytes of a blob from the offset `from` on. Answered by `Blob`, then that many raw bytes less `from`.
    Blob { digest: String, from: u64 },
    /// What the name stands for here; without one, all names. Answered by `Names`.
    Names { reference: Option<String> },
    /// Keep a copy under that name. Answered by `Copying` now and then, and `Changed` at the end.
    Copy { name: ImageName },
    /// The name goes, and what nobody needs of its content. Answered by `Changed`.
    Remove { reference: String },
    /// News: the name stands for this now; whoever has an older one forgets it. Answered by `Changed`.
    Loaded { name: ImageName },
    /// The images that no job uses go, those unused for so long. Answered by `Collected`.
    Prune { unused_ms: u64 },
    /// Credentials for registries, the gone ones too: of each registry the newest counts. Answered by `Changed`.
    Credentials { registries: Vec<Credential> },
}

/// The answer, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageTold {
    Held {
        blobs: Vec<HeldBlob>,
        /// Those that it is bringing in from a registry, or is about to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        coming: Vec<ComingBlob>,
    },
    Blob {
        size: u64,
    },
    Names {
        names: Vec<ImageName>,
    },
    Copying {
        done: u64,
        total: u64,
    },
    Changed {
        changed: bool,
    },
    /// Names of the images that went (digests of those without), and what went wrong.
    Collected {
        images: Vec<String>,
        freed_bytes: u64,
        trouble: Option<String>,
    },
}

/// A blob on its way from a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComingBlob {
    pub digest: String,
    /// False: whoever has a lower id and wants it too goes first.
    pub begun: bool,
}

/// Who may pull from a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// `host[:port]`.
    pub registry: String,
    /// None: they were taken away.
    pub login: Option<Login>,
    /// When, by the clock of the node that was asked to.
    pub set_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    pub user: String,
    pub password: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBlob {
    pub digest: String,
    pub size: u64,
}

/// What an image's name stands for on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageName {
    pub reference: String,
    pub digest: String,
    /// When it was given, by the clock of the node that was asked to: the newest counts.
    pub set_ms: u64,
    /// Made on that node of its own binary: nobody keeps copies of it.
    #[serde(default)]
    pub made: bool,
    #[serde(default)]
    pub size_bytes: Option<u64>,
    #[serde(default)]
    pub layers: Option<usize>,
}
