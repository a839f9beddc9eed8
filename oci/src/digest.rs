//! Content digests: `sha256:` and 64 lower-case hex digits.
//!
//! Other algorithms that the OCI specification lists (sha512) are refused by name: a store that
//! holds one algorithm has one name for one content.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes. Its text form is `sha256:<hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("digest {0:?} has no algorithm: expected sha256:<64 hex digits>")]
    NoAlgorithm(String),
    #[error("digest {text:?} uses {algorithm}: only sha256 is supported")]
    Algorithm { text: String, algorithm: String },
    #[error("digest {0:?} is not 64 lower-case hex digits after sha256:")]
    Hex(String),
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hex digits alone, as they name files.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Reads what [`Digest::hex`] gives; `None` for anything else.
    pub fn from_hex(hex: &str) -> Option<Self> {
        let digit = |c: u8| match c {
            b'0'..=b'9' => Some(c - b'0'),
            b'a'..=b'f' => Some(c - b'a' + 10),
            _ => None,
        };
        let hex = hex.as_bytes();
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes))
    }

    /// The ChainID of the OCI image specification: what `diff` gives when it is applied on top of `parent`.
    pub(crate) fn chain(parent: Option<&Digest>, diff: &Digest) -> Digest {
        match parent {
            None => *diff,
            Some(parent) => Digest::of(format!("{parent} {diff}").as_bytes()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| ParseError::NoAlgorithm(text.into()))?;
        if algorithm != "sha256" {
            return Err(ParseError::Algorithm { text: text.into(), algorithm: algorithm.into() });
        }
        Self::from_hex(hex).ok_or_else(|| ParseError::Hex(text.into()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Hashes and counts what is written to it.
#[derive(Default, Debug, Clone)]
pub(crate) struct Hasher {
    sha: Sha256,
    len: u64,
}

impl Hasher {
    pub(crate) fn finish(self) -> (Digest, u64) {
        (Digest(self.sha.finalize().into()), self.len)
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sha.update(bytes);
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn text_and_back() {
        let empty = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty.to_string(), text);
        assert_eq!(text.parse::<Digest>().unwrap(), empty);
        assert_eq!(serde_json::to_string(&empty).unwrap(), format!("{text:?}"));
    }

    #[test]
    fn what_is_refused_and_why() {
        let refused = |text: &str| text.parse::<Digest>().unwrap_err().to_string();
        assert_eq!(refused("e3b0"), r#"digest "e3b0" has no algorithm: expected sha256:<64 hex digits>"#);
        assert_eq!(refused("sha512:00"), r#"digest "sha512:00" uses sha512: only sha256 is supported"#);
        let hex = r#"digest "sha256:../../etc" is not 64 lower-case hex digits after sha256:"#;
        assert_eq!(refused("sha256:../../etc"), hex);
        let upper = format!("sha256:{}", "A".repeat(64));
        assert!(refused(&upper).ends_with("is not 64 lower-case hex digits after sha256:"));
    }
}
