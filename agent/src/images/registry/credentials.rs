//! Credentials for registries: those that were given to the cell, in `DIR/registries.json` of each node (mode 0600, not
//! encrypted: whoever is root on a node reads them), and those of a file of this machine's.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use gossip::wire::{
    Secret,
    image::{Credential, Login},
};
use serde::{Deserialize, Serialize};

use super::{locked, place::DOCKER};
use crate::dir::{self, DirError};

/// Credentials that cannot be read or kept. The messages hold none.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error("the credentials in {path} cannot be read: {why}")]
    File { path: PathBuf, why: String },
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    #[serde(default)]
    registries: Vec<Credential>,
}

/// Docker's `config.json`, as far as it is read here.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize)]
struct DockerAuth {
    /// Base64 of `user:password`.
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
}

pub(super) struct Credentials {
    path: PathBuf,
    file: Option<PathBuf>,
    held: Mutex<BTreeMap<String, Credential>>,
}

impl Credentials {
    pub(super) fn open(path: &Path, file: Option<PathBuf>) -> Result<Credentials, CredentialsError> {
        let kept: Kept = dir::read_json(path, "credentials for registries")?.unwrap_or_default();
        let held = kept.registries.into_iter().map(|one| (one.registry.clone(), one)).collect();
        Ok(Credentials { path: path.to_path_buf(), file, held: Mutex::new(held) })
    }

    /// Takes what is newer than what is here; whether anything was.
    pub(super) fn merge(&self, news: Vec<Credential>) -> Result<bool, CredentialsError> {
        let mut held = locked(&self.held);
        let mut merged = held.clone();
        for one in news {
            if merged.get(&one.registry).is_none_or(|known| known.set_ms < one.set_ms) {
                merged.insert(one.registry.clone(), one);
            }
        }
        if merged == *held {
            return Ok(false);
        }
        let kept = Kept { registries: merged.values().cloned().collect() };
        dir::write_json(&self.path, &kept, 0o600)?;
        *held = merged;
        Ok(true)
    }

    pub(super) fn all(&self) -> Vec<Credential> {
        locked(&self.held).values().cloned().collect()
    }

    pub(super) fn given_to_cell(&self, registry: &str) -> Option<Login> {
        locked(&self.held).get(registry).and_then(|one| one.login.clone())
    }

    /// The cell's, else the file's.
    pub(super) fn of(&self, registry: &str) -> Result<Option<Login>, CredentialsError> {
        match (self.given_to_cell(registry), &self.file) {
            (Some(login), _) => Ok(Some(login)),
            (None, Some(file)) => from_file(file, registry),
            (None, None) => Ok(None),
        }
    }
}

/// Read each time: whoever renews it need not tell the agent.
fn from_file(path: &Path, registry: &str) -> Result<Option<Login>, CredentialsError> {
    let failed = |why: String| CredentialsError::File { path: path.to_path_buf(), why };
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    // An error of the parser may quote what it read.
    let config: DockerConfig = serde_json::from_slice(&text)
        .map_err(|error| failed(format!("line {} is not as docker's config.json", error.line())))?;
    let Some((_, found)) = config.auths.into_iter().find(|(key, _)| host(key) == registry) else {
        return Ok(None);
    };
    let login = |user: &str, password: &str| Login { user: user.into(), password: Secret(password.into()) };
    if let (Some(user), Some(password)) = (&found.username, &found.password) {
        return Ok(Some(login(user, password)));
    }
    let Some(encoded) = found.auth else { return Ok(None) };
    let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => Ok(Some(login(user, password))),
        None => Err(failed(format!("`auth` of {registry} is not the base64 of USER:PASSWORD"))),
    }
}

/// The `host[:port]` of a registry as people write it: with a scheme, with a path, or as one of Docker's own.
pub(in crate::images) fn host(text: &str) -> &str {
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    match text.split('/').next().unwrap_or(text) {
        "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => DOCKER,
        host => host,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn login(user: &str) -> Option<Login> {
        Some(Login { user: user.into(), password: Secret("secret".into()) })
    }

    fn set(registry: &str, login: Option<Login>, set_ms: u64) -> Credential {
        Credential { registry: registry.into(), login, set_ms }
    }

    #[test]
    fn the_newest_counts_and_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("registries.json");
        let open = || Credentials::open(&path, None).unwrap();
        let here = open();
        assert_eq!(here.of("r:5000").unwrap(), None);
        assert!(here.merge(vec![set("r:5000", login("ann"), 5)]).unwrap());
        assert!(!here.merge(vec![set("r:5000", login("old"), 4)]).unwrap());
        assert_eq!(open().of("r:5000").unwrap(), login("ann"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(here.merge(vec![set("r:5000", None, 6)]).unwrap());
        assert!(!here.merge(vec![set("r:5000", login("ann"), 5)]).unwrap(), "taken away for good");
        assert_eq!(open().of("r:5000").unwrap(), None);
    }

    #[test]
    fn dockers_file_counts_where_the_cell_has_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("config.json");
        let here = Credentials::open(&temp.path().join("none"), Some(file.clone())).unwrap();
        assert_eq!(here.of("docker.io").unwrap(), None, "there may be none");
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "YW5uOnNlY3JldA=="},
            "r:5000": {"username": "bob", "password": "secret"}, "x": {"auth": "%"}}, "credsStore": "pass"}"#;
        fs::write(&file, text).unwrap();
        assert_eq!(here.of("docker.io").unwrap(), login("ann"));
        assert_eq!(here.of("r:5000").unwrap(), login("bob"));
        here.merge(vec![set("r:5000", login("ann"), 5)]).unwrap();
        assert_eq!(here.of("r:5000").unwrap(), login("ann"));
        assert!(here.of("x").is_err());
        fs::write(&file, "{\"auths\": secret").unwrap();
        let error = here.of("docker.io").unwrap_err().to_string();
        assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
    }
}
