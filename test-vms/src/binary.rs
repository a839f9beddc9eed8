//! Finds the binary that is tested.

use std::env;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// `$COVEY`, else `target/release/covey` of this checkout.
///
/// # Errors
/// When it has not been built.
pub fn covey() -> Result<PathBuf> {
    let path = match env::var_os("COVEY") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/covey"),
    };
    path.canonicalize().map_err(|why| {
        Error::Missing(format!("no covey binary at {}: {why}; run `make build`", path.display()))
    })
}
