//! Tokens as people hand them over: as text, or `@FILE` and the environment, since a command line is seen by others.

use std::{env, fs, io, path::PathBuf};

use gossip::token::{BadToken, Token};

/// Where a token is taken from if no option names one.
pub(crate) const VARIABLE: &str = "COVEY_TOKEN";

/// A token that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("cannot read the token in {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{from}: {source}")]
    Bad { from: String, source: BadToken },
}

/// What the environment says, if anything.
pub(crate) fn from_env() -> Option<String> {
    env::var(VARIABLE).ok().filter(|text| !text.is_empty())
}

/// The token that `given` is, or that the file holds which it names. `from`: who gave it, for errors.
pub(crate) fn read(given: &str, from: &str) -> Result<Token, TokenError> {
    let bad = |from: String| move |source| TokenError::Bad { from, source };
    match given.strip_prefix('@') {
        None => given.parse().map_err(bad(from.to_owned())),
        Some(path) => {
            let path = PathBuf::from(path);
            let text = fs::read_to_string(&path)
                .map_err(|source| TokenError::Read { path: path.clone(), source })?;
            text.parse().map_err(bad(path.display().to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_or_the_text_itself() {
        let text = format!("covey1.{}.{}", "ab".repeat(32), "07".repeat(16));
        assert_eq!(read(&text, "--token").unwrap().to_string(), text);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let given = format!("@{}", path.display());
        let why = read(&given, "--token").unwrap_err().to_string();
        assert!(why.starts_with("cannot read the token in /"), "{why}");
        fs::write(&path, format!("{text}\n")).unwrap();
        assert_eq!(read(&given, "--token").unwrap().to_string(), text);
        fs::write(&path, &text[..50]).unwrap();
        let why = read(&given, "--token").unwrap_err().to_string();
        assert!(why.contains("/token: the token is damaged: its fingerprint"), "{why}");
        let why = read("covey", "--token").unwrap_err().to_string();
        assert!(why.starts_with("--token: this is not a join token"), "{why}");
    }
}
