//! Which modules to load, and in which order. The kernel's package has no index of them (its installation would make
//! one), so each module is asked: a `.modinfo` section lists what it depends on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The files of the `wanted` modules and of all that they depend on, each after what it depends on.
pub(super) fn in_order(directory: &Path, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let mut known = BTreeMap::new();
    index(directory, &mut known)?;
    let mut order = Vec::new();
    for name in wanted {
        add(name, &known, &mut order)?;
    }
    Ok(order)
}

fn add(name: &str, known: &BTreeMap<String, PathBuf>, order: &mut Vec<PathBuf>) -> Result<()> {
    let path = known
        .get(name)
        .ok_or_else(|| Error::Missing(format!("the kernel has no module {name}, or it is built in")))?;
    if order.contains(path) {
        return Ok(());
    }
    let module = fs::read(path).map_err(Error::file("read", path))?;
    for needed in dependencies(&module) {
        add(&needed, known, order)?;
    }
    order.push(path.clone());
    Ok(())
}

/// Every module below `directory` by its name, in which `-` is `_`.
fn index(directory: &Path, known: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).map_err(Error::file("list", directory))? {
        let path = entry.map_err(Error::file("list", directory))?.path();
        if path.is_dir() && !path.is_symlink() {
            index(&path, known)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
            known.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The value of `depends=`, one of the zero-terminated strings of `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_module_comes_after_its_dependencies() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, depends: &str| {
            let modinfo = format!("elf\0license=GPL\0depends={depends}\0name={name}\0");
            fs::write(directory.path().join(format!("{name}.ko")), modinfo).unwrap();
        };
        write("virtio_blk", "virtio,virtio-ring");
        write("virtio-ring", "virtio");
        write("virtio", "");
        let order = in_order(directory.path(), &["virtio_blk", "virtio"]).unwrap();
        let names: Vec<_> = order.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["virtio", "virtio-ring", "virtio_blk"]);
        assert!(in_order(directory.path(), &["btrfs"]).is_err());
    }
}
