//! Contexts: cells that somebody has logged in to, each with credentials and the addresses of its nodes, in files that
//! nobody else can read.

use std::{
    env,
    ffi::OsString,
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use gossip::tls::{ClientCredentials, TlsError};
use placement::{
    ids::{CellId, Principal},
    job::name::is_label,
    ledger::Role,
};
use serde::{Deserialize, Serialize};

/// Stands for this machine's own agent, by its socket.
pub(crate) const LOCAL: &str = "local";
/// Addresses that are kept: more than anybody will try.
const NODES: usize = 16;

/// A cell that somebody has logged in to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) version: u32,
    pub(crate) cell: CellId,
    pub(crate) cell_name: String,
    pub(crate) principal: Principal,
    pub(crate) role: Role,
    /// `HOST:PORT`, the best first.
    pub(crate) nodes: Vec<String>,
    /// PKCS#8 PEM.
    pub(crate) key: String,
    /// PEM.
    pub(crate) certificate: String,
    /// PEM.
    pub(crate) authority: String,
}

/// A file with contexts that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    #[error("there is no place for credentials: neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} holds no context: {source}")]
    Form { path: PathBuf, source: serde_json::Error },
    #[error("{path} is of a newer covey (version {version}): use that one, or log in again")]
    Newer { path: PathBuf, version: u32 },
    #[error("there is no context `{name}`{}", those(.known))]
    Unknown { name: String, known: Vec<String> },
    #[error(
        "`{0}` cannot be the name of a context: a small letter, then small letters, digits and -, at most 63"
    )]
    Name(String),
    #[error("`{LOCAL}` stands for this machine's own agent: choose another name")]
    Local,
    #[error("the credentials of context `{name}`: {source}. Log in again")]
    Credentials { name: String, source: TlsError },
}

fn those(names: &[String]) -> String {
    match names {
        [] => ": `covey login` makes one".to_owned(),
        names => format!(": there are {LOCAL}, {}", names.join(", ")),
    }
}

impl Context {
    pub(crate) fn credentials(&self, name: &str) -> Result<ClientCredentials, ContextError> {
        ClientCredentials::new(&self.key, &self.certificate, &self.authority)
            .map_err(|source| ContextError::Credentials { name: name.to_owned(), source })
    }
}

/// Where contexts are kept: `DIR/contexts/NAME.json`, and in `DIR/current` the name of the one that is used.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    /// Of whoever runs this: below `XDG_CONFIG_HOME`, or `~/.config`.
    pub(crate) fn open() -> Result<Shelf, ContextError> {
        let set = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty());
        let config = set("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config = config.or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
        Ok(Shelf::at(config.ok_or(ContextError::NoHome)?.join("covey")))
    }

    pub(crate) fn at(dir: PathBuf) -> Shelf {
        Shelf { dir }
    }

    /// The name of the context that is used; none: this machine's own agent.
    pub(crate) fn current(&self) -> Result<Option<String>, ContextError> {
        let name = read(&self.dir.join("current"))?.map(|text| text.trim().to_owned());
        Ok(name.filter(|name| !name.is_empty() && name != LOCAL))
    }

    /// Uses it from now on.
    pub(crate) fn choose(&self, name: &str) -> Result<(), ContextError> {
        if name != LOCAL {
            self.load(name)?;
        }
        self.write(&self.dir.join("current"), format!("{name}\n").as_bytes())
    }

    /// In order of their names.
    pub(crate) fn names(&self) -> Result<Vec<String>, ContextError> {
        let dir = self.dir.join("contexts");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(ContextError::Io { what: "list", path: dir, source }),
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned()))
            .filter(|name| is_label(name))
            .collect();
        names.sort();
        Ok(names)
    }

    pub(crate) fn load(&self, name: &str) -> Result<Context, ContextError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = self.path(name)?;
        let Some(text) = read(&path)? else {
            return Err(ContextError::Unknown { name: name.to_owned(), known: self.names()? });
        };
        let form = |source| ContextError::Form { path: path.clone(), source };
        let Versioned { version } = serde_json::from_str(&text).map_err(form)?;
        if version > 1 {
            return Err(ContextError::Newer { path, version });
        }
        serde_json::from_str(&text).map_err(form)
    }

    pub(crate) fn save(&self, name: &str, context: &Context) -> Result<(), ContextError> {
        let path = self.path(name)?;
        let mut context = context.clone();
        context.nodes.truncate(NODES);
        let text = serde_json::to_vec_pretty(&context)
            .map_err(|source| ContextError::Form { path: path.clone(), source })?;
        self.write(&path, &text)
    }

    fn path(&self, name: &str) -> Result<PathBuf, ContextError> {
        if name == LOCAL {
            return Err(ContextError::Local);
        }
        if !is_label(name) {
            return Err(ContextError::Name(name.to_owned()));
        }
        Ok(self.dir.join("contexts").join(format!("{name}.json")))
    }

    /// Whole or not at all, and from the first byte on for nobody else to read.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ContextError> {
        let failed = |what| {
            let path = path.to_owned();
            move |source| ContextError::Io { what, path, source }
        };
        let dir = path.parent().unwrap_or(&self.dir);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed("make the directory of"))?;
        let temp = path.with_extension(format!("{}.tmp", std::process::id()));
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&temp, path));
        written.map_err(|source| {
            let _ = fs::remove_file(&temp);
            failed("write")(source)
        })
    }
}

/// None if there is no such file.
fn read(path: &Path) -> Result<Option<String>, ContextError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ContextError::Io { what: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn context() -> Context {
        Context {
            version: 1,
            cell: CellId("ab".repeat(32)),
            cell_name: "lab".into(),
            principal: Principal("ann".into()),
            role: Role::User,
            nodes: (0..20).map(|n| format!("n{n}:7411")).collect(),
            key: "k".into(),
            certificate: "c".into(),
            authority: "a".into(),
        }
    }

    #[test]
    fn contexts_are_kept_for_nobody_else_to_read() {
        let temp = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(temp.path().join("covey"));
        assert_eq!((shelf.current().unwrap(), shelf.names().unwrap()), (None, vec![]));
        shelf.save("lab", &context()).unwrap();
        shelf.save("b", &context()).unwrap();
        shelf.choose("lab").unwrap();
        assert_eq!(shelf.names().unwrap(), ["b", "lab"]);
        assert_eq!(shelf.current().unwrap().as_deref(), Some("lab"));
        let read = shelf.load("lab").unwrap();
        assert_eq!((read.nodes.len(), read.principal.0.as_str()), (NODES, "ann"));
        for (path, mode) in [
            ("covey", 0o700),
            ("covey/contexts", 0o700),
            ("covey/contexts/lab.json", 0o600),
            ("covey/current", 0o600),
        ] {
            let found = fs::metadata(temp.path().join(path)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{path}");
        }
        shelf.choose(LOCAL).unwrap();
        assert_eq!(shelf.current().unwrap(), None);
        assert!(shelf.choose("c").unwrap_err().to_string().contains("there are local, b, lab"));
        assert!(matches!(shelf.save(LOCAL, &context()), Err(ContextError::Local)));
        assert!(matches!(shelf.save("../x", &context()), Err(ContextError::Name(_))));
    }

    #[test]
    fn what_is_no_context_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(temp.path().to_owned());
        shelf.save("lab", &context()).unwrap();
        let path = temp.path().join("contexts/lab.json");
        for (text, wanted) in [
            ("", "holds no context"),
            ("{}", "missing field `version`"),
            ("{\"version\": 1}", "missing field `cell`"),
            ("{\"version\": 2}", "is of a newer covey (version 2)"),
        ] {
            fs::write(&path, text).unwrap();
            let why = shelf.load("lab").err().unwrap().to_string();
            assert!(why.contains(wanted), "{text}: {why}");
        }
        assert!(context().credentials("lab").unwrap_err().to_string().contains("Log in again"));
    }
}
