//! An OCI layout of directories, made with tar and sha256sum.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// An image in the making.
pub(crate) struct Image {
    name: String,
    layout: TempDir,
    layers: Vec<(String, u64)>,
    config: Value,
}

impl Image {
    /// `config` is what a Dockerfile's last lines say, in the image specification's words.
    pub(crate) fn new(name: &str, config: Value) -> Image {
        let layout = tempfile::tempdir().unwrap();
        fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        Image { name: name.to_owned(), layout, layers: Vec::new(), config }
    }

    /// Adds what is in a directory.
    pub(crate) fn dir(self, dir: &Path) -> Image {
        let tar = self.layout.path().join("layer.tar");
        let mut make = Command::new("tar");
        make.args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "--sort=name", "-C"])
            .arg(dir)
            .arg("-cf");
        assert!(make.arg(&tar).arg(".").status().unwrap().success());
        self.tar(&tar)
    }

    /// Adds a layer that is an archive already; it is moved away.
    pub(crate) fn tar(mut self, tar: &Path) -> Image {
        let blob = self.blob(tar);
        self.layers.push(blob);
        self
    }

    fn blob(&self, file: &Path) -> (String, u64) {
        let said = Command::new("sha256sum").arg(file).output().unwrap();
        let hex = String::from_utf8(said.stdout).unwrap()[..64].to_owned();
        let size = file.metadata().unwrap().len();
        fs::rename(file, self.layout.path().join("blobs/sha256").join(&hex)).unwrap();
        (format!("sha256:{hex}"), size)
    }

    fn document(&self, document: &Value) -> (String, u64) {
        let file = self.layout.path().join("document.json");
        fs::write(&file, document.to_string()).unwrap();
        self.blob(&file)
    }

    /// The finished layout, which is gone when dropped, and the image's name.
    pub(crate) fn finish(self) -> Finished {
        let diff_ids: Vec<&String> = self.layers.iter().map(|(digest, _)| digest).collect();
        let config = self.document(&json!({
            "architecture": "amd64", "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }));
        let described = |kind: &str, (digest, size): &(String, u64)| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": size});
        let layers: Vec<Value> = self.layers.iter().map(|layer| described("layer.v1.tar", layer)).collect();
        let manifest = self.document(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("config.v1+json", &config), "layers": layers,
        }));
        let mut entry = described("manifest.v1+json", &manifest);
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        fs::write(self.layout.path().join("index.json"), index.to_string()).unwrap();
        fs::write(self.layout.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Finished { layout: self.layout, name: self.name }
    }
}

pub(crate) struct Finished {
    layout: TempDir,
    pub(crate) name: String,
}

impl Finished {
    pub(crate) fn path(&self) -> PathBuf {
        self.layout.path().to_path_buf()
    }
}
