//! Image references: `name[:tag][@digest]`.
//!
//! The grammar is the one of the distribution specification. Docker's normalisation is kept minimal:
//! `hello:1` stays `hello:1`, `docker.io/library/hello:1` becomes it, and a missing tag is filled in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{self, Digest};

/// The tag of a reference that names none.
pub const DEFAULT_TAG: &str = "latest";
/// Names of images that were made of a file begin so.
const OF_FILE: &str = "file/";
/// Longest name in bytes, as registries have it.
const NAME_MAX: usize = 255;
/// Longest tag in bytes, as the distribution specification has it.
const TAG_MAX: usize = 128;

/// Which image: a name with a tag, a digest or both. With both, the digest says what is meant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    name: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("image reference is empty: expected name[:tag][@sha256:…]")]
    Empty,
    #[error("image reference {text:?}: the name is longer than {NAME_MAX} bytes")]
    LongName { text: String },
    #[error(
        "image reference {text:?}: {component:?} is not a name component (lower-case letters and digits, \
         separated by one of . _ __ -)"
    )]
    Component { text: String, component: String },
    #[error("image reference {text:?}: {host:?} is not a registry's host[:port]")]
    Host { text: String, host: String },
    #[error(
        "image reference {text:?}: {tag:?} is not a tag (letters, digits, _ . -; at most {TAG_MAX}, first no . or -)"
    )]
    Tag { text: String, tag: String },
    #[error("image reference {text:?}: {source}")]
    Digest { text: String, source: digest::ParseError },
}

impl Reference {
    /// The name without tag and digest, e.g. `registry:5000/team/web`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tag; `None` only if the reference names a digest instead.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The registry's `host[:port]`, if the name begins with one.
    pub fn registry(&self) -> Option<&str> {
        let (host, _) = self.name.split_once('/')?;
        is_registry(host).then_some(host)
    }

    /// The name without the registry: `team/web`.
    pub fn repository(&self) -> &str {
        match self.registry() {
            Some(host) => self.name.get(host.len() + 1..).unwrap_or_default(),
            None => &self.name,
        }
    }

    /// The same image by its digest.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// Whether it names an image that was made of a file (`binary`): no registry has it.
    pub fn is_of_file(&self) -> bool {
        self.name.starts_with(OF_FILE)
    }

    /// A name of covey's own giving. The parts are of a reference's letters.
    pub(crate) fn of_file(name: &str, tag: &str) -> Reference {
        Reference { name: format!("{OF_FILE}{name}"), tag: Some(tag.to_owned()), digest: None }
    }

    /// `name:tag` alone: what names are filed under.
    pub(crate) fn tagged(&self) -> Reference {
        let tag = self.tag.clone().unwrap_or_else(|| DEFAULT_TAG.into());
        Reference { name: self.name.clone(), tag: Some(tag), digest: None }
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest =
                    digest.parse().map_err(|source| ParseError::Digest { text: text.into(), source })?;
                (rest, Some(digest))
            }
        };
        // A colon before the last slash belongs to a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        // What Docker means by a name without a host is written without it here, so that both spellings are one.
        let name = ["docker.io/library/", "docker.io/"]
            .iter()
            .find_map(|hub| name.strip_prefix(hub))
            .unwrap_or(name);
        check_name(text, name)?;
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ParseError::Tag { text: text.into(), tag: tag.into() });
        }
        let tag = match tag {
            None if digest.is_none() => Some(DEFAULT_TAG.to_owned()),
            tag => tag.map(str::to_owned),
        };
        Ok(Self { name: name.into(), tag, digest })
    }
}

fn check_name(text: &str, name: &str) -> Result<(), ParseError> {
    if name.len() > NAME_MAX {
        return Err(ParseError::LongName { text: text.into() });
    }
    let mut path = name;
    if let Some((host, rest)) = name.split_once('/')
        && is_registry(host)
    {
        if !is_host(host) {
            return Err(ParseError::Host { text: text.into(), host: host.into() });
        }
        path = rest;
    }
    match path.split('/').find(|component| !is_component(component)) {
        Some(component) => Err(ParseError::Component { text: text.into(), component: component.into() }),
        None => Ok(()),
    }
}

/// What distinguishes a host from a first component: a dot, a port, or being localhost.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_host(host: &str) -> bool {
    let (host, port) = host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        edge(label.chars().next())
            && edge(label.chars().last())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    host.split('.').all(label) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_component(component: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut rest = component;
    loop {
        let word = rest.find(|c| !alphanumeric(c)).unwrap_or(rest.len());
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.find(alphanumeric).unwrap_or(rest.len());
        let known =
            matches!(&rest[..separator], "." | "_" | "__") || rest[..separator].chars().all(|c| c == '-');
        if !known {
            return false;
        }
        rest = &rest[separator..];
    }
}

fn is_tag(tag: &str) -> bool {
    (1..=TAG_MAX).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parts() {
        let parsed = |text: &str| {
            let r: Reference = text.parse().unwrap();
            assert_eq!(r.to_string().parse::<Reference>().unwrap(), r, "reads what it writes");
            (r.name().to_owned(), r.tag().map(str::to_owned), r.digest().copied())
        };
        let tag = |tag: &str| Some(tag.to_owned());
        assert_eq!(parsed("hello:1"), ("hello".into(), tag("1"), None));
        assert_eq!(parsed("hello"), ("hello".into(), tag("latest"), None));
        assert_eq!(parsed("docker.io/library/hello:1"), parsed("hello:1"));
        assert_eq!(parsed("docker.io/team/hello:1"), parsed("team/hello:1"));
        assert_eq!(parsed("localhost:5000/a/b"), ("localhost:5000/a/b".into(), tag("latest"), None));
        assert_eq!(
            parsed("r.example.org/a__b/c-d:v1.2"),
            ("r.example.org/a__b/c-d".into(), tag("v1.2"), None)
        );
        let digest = D.parse().unwrap();
        assert_eq!(parsed(&format!("web@{D}")), ("web".into(), None, Some(digest)));
        assert_eq!(parsed(&format!("web:2@{D}")), ("web".into(), tag("2"), Some(digest)));
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, why) in [
            ("", "image reference is empty: expected name[:tag][@sha256:…]"),
            ("Hello:1", "\"Hello\" is not a name component"),
            ("a//b", "\"\" is not a name component"),
            ("a/../b", "\"..\" is not a name component"),
            ("/a", "\"\" is not a name component"),
            ("a..b", "\"a..b\" is not a name component"),
            ("hello:", "\"\" is not a tag"),
            ("hello:-x", "\"-x\" is not a tag"),
            ("host:99999/a", "\"host:99999\" is not a registry's host[:port]"),
            ("-.x/a", "\"-.x\" is not a registry's host[:port]"),
            ("web@sha256:12", "is not 64 lower-case hex digits after sha256:"),
            ("web@12", "digest \"12\" has no algorithm"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
