//! Where a reference leads: which registry, by which mirrors, with TLS or without.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use oci::reference::Reference;
use oci_client::secrets::RegistryAuth;

use super::error::Asked;

/// What a name without a registry means, as elsewhere.
pub const DOCKER: &str = "docker.io";

/// What the agent's configuration says of registries.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where names without a registry lead; none: nowhere.
    pub default: Option<String>,
    /// `host[:port]` of registries without TLS. Those on this machine are that anyhow.
    pub plain: Vec<String>,
    /// Files of certificates (PEM) that are believed besides the system's.
    pub ca: Vec<PathBuf>,
    /// Of a registry: who is asked before it.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// A file as docker's `config.json`, whose `auths` count where the cell has no credentials.
    pub auth_file: Option<PathBuf>,
    /// How long an answer, and each piece of a blob, is waited for.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            default: Some(DOCKER.into()),
            plain: Vec::new(),
            ca: Vec::new(),
            mirrors: BTreeMap::new(),
            auth_file: None,
            patience: Duration::from_secs(8),
        }
    }
}

impl Settings {
    /// No registry at all but those that a name begins with.
    pub fn named_only() -> Settings {
        Settings { default: None, ..Settings::default() }
    }

    pub(super) fn registry<'a>(&'a self, reference: &'a Reference) -> Option<&'a str> {
        if reference.is_of_file() {
            return None;
        }
        reference.registry().or(self.default.as_deref()).filter(|registry| !registry.is_empty())
    }

    /// Who is asked for it, in this order.
    pub(super) fn places(&self, reference: &Reference) -> Vec<Place> {
        let Some(registry) = self.registry(reference) else { return Vec::new() };
        let mirrors = self.mirrors.get(registry).into_iter().flatten().map(String::as_str);
        let place = |host| Place { mirrored: Some(registry.to_string()), ..self.place(host) };
        mirrors.chain([registry]).map(place).collect()
    }

    pub(super) fn place(&self, host: &str) -> Place {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let here = name == "localhost" || name.starts_with("127.");
        let plain = here || self.plain.iter().any(|plain| plain == host);
        Place { host: host.to_string(), plain, mirrored: None }
    }
}

/// A registry, or a mirror of one.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) plain: bool,
    /// What it is asked in place of.
    mirrored: Option<String>,
}

impl Place {
    /// The reference as the client library has it.
    pub(super) fn image(&self, reference: &Reference) -> oci_client::Reference {
        let path = reference.repository();
        // Docker's own images are in a repository that nobody writes.
        let of = self.mirrored.as_deref().unwrap_or(&self.host);
        let path =
            if of == DOCKER && !path.contains('/') { format!("library/{path}") } else { path.to_string() };
        match (reference.digest(), reference.tag()) {
            (Some(digest), _) => {
                oci_client::Reference::with_digest(self.host.clone(), path, digest.to_string())
            }
            (None, tag) => {
                let tag = tag.unwrap_or(oci::reference::DEFAULT_TAG);
                oci_client::Reference::with_tag(self.host.clone(), path, tag.to_string())
            }
        }
    }

    pub(super) fn asked(&self, reference: &Reference, auth: &RegistryAuth) -> Asked {
        let user = match auth {
            RegistryAuth::Basic(user, _) => Some(user.clone()),
            _ => None,
        };
        Asked { registry: self.host.clone(), plain: self.plain, image: reference.to_string(), user }
    }

    pub(super) fn asked_nothing(&self) -> Asked {
        Asked { registry: self.host.clone(), plain: self.plain, image: String::new(), user: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn places(settings: &Settings, name: &str) -> Vec<(String, bool)> {
        let reference = name.parse().unwrap();
        let shown = |place: Place| (place.image(&reference).whole(), place.plain);
        settings.places(&reference).into_iter().map(shown).collect()
    }

    #[test]
    fn a_name_leads_where_users_expect() {
        let settings = Settings {
            plain: vec!["10.0.0.5:5000".into()],
            mirrors: [("docker.io".to_string(), vec!["mirror.example.org".to_string()])].into(),
            ..Settings::default()
        };
        let tls = |text: &str| (text.to_string(), false);
        let plain = |text: &str| (text.to_string(), true);
        let hub = [tls("mirror.example.org/library/nginx:1.27"), tls("docker.io/library/nginx:1.27")];
        assert_eq!(places(&settings, "nginx:1.27"), hub);
        assert_eq!(places(&settings, "docker.io/team/web")[1], tls("docker.io/team/web:latest"));
        assert_eq!(places(&settings, "localhost:5000/web:1"), [plain("localhost:5000/web:1")]);
        assert_eq!(places(&settings, "127.0.0.1:5000/a/b"), [plain("127.0.0.1:5000/a/b:latest")]);
        assert_eq!(places(&settings, "10.0.0.5:5000/web:1"), [plain("10.0.0.5:5000/web:1")]);
        assert_eq!(places(&settings, "r.example.org/web:1"), [tls("r.example.org/web:1")]);
        assert_eq!(places(&settings, "file/web:0123456789ab"), []);
        assert_eq!(places(&Settings::named_only(), "nginx:1.27"), []);
    }
}
