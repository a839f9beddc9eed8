use std::path::Path;

use test_vms::lab::{Lab, Result};

/// On any host: the cell makes copies.
pub(crate) fn image(lab: &Lab, file: &Path) -> Result<()> {
    let host = lab.any_agent()?;
    // The host sees this machine's files, from another directory.
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    print!("{}", lab.covey(&host, &["image", "load", &file.display().to_string()])?);
    Ok(())
}
