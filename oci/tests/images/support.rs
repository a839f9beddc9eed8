//! Makes layers and images, sound ones and others, byte by byte where no tool would do it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use oci::content::Store;
use oci::digest::Digest;
use oci::layers::{self, Limits, Source};
use oci::layout::{self, LoadedImage};
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// A tar archive in the making. Names are written as given, whatever they are.
#[derive(Default, Clone)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn header(kind: EntryType, path: &str) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header
    }

    pub fn entry(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with(path, content, |_| {})
    }

    pub fn file_with(self, path: &str, content: impl AsRef<[u8]>, change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Self::header(EntryType::Regular, path);
        header.set_size(content.as_ref().len() as u64);
        change(&mut header);
        self.entry(header, content.as_ref())
    }

    pub fn dir(self, path: &str) -> Self {
        self.dir_with(path, |_| {})
    }

    pub fn dir_with(self, path: &str, change: impl FnOnce(&mut Header)) -> Self {
        let mut header = Self::header(EntryType::Directory, path);
        change(&mut header);
        self.entry(header, b"")
    }

    pub fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(kind, path);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(header, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    pub fn special(self, kind: EntryType, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, path);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.entry(header, b"")
    }

    /// PAX records for the entry that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let len = (rest + 1..rest + 20).find(|len| rest + len.to_string().len() == *len).unwrap();
            content.extend(format!("{len} {key}=").bytes().chain(value.iter().copied()).chain([b'\n']));
        }
        let mut header = Self::header(EntryType::XHeader, "PaxHeaders/x");
        header.set_size(content.len() as u64);
        self.entry(header, &content)
    }

    /// A GNU long name or long link name for the entry that follows.
    pub fn long(self, kind: EntryType, name: &[u8]) -> Self {
        let mut header = Self::header(kind, "././@LongLink");
        header.set_size(name.len() as u64 + 1);
        self.entry(header, &[name, b"\0"].concat())
    }

    pub fn bytes(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Unpacks one layer into `dir/layer`, as it is or compressed.
pub fn unpack(
    dir: &Path,
    archive: &[u8],
    below: &[PathBuf],
    limits: &Limits,
) -> Result<PathBuf, layers::Error> {
    let number = fs::read_dir(dir).unwrap().count();
    let (blob, target) = (dir.join(format!("blob{number}")), dir.join(format!("layer{number}")));
    fs::write(&blob, archive).unwrap();
    let digest = Digest::of(archive);
    let source = Source { blob: digest, size: archive.len() as u64, diff_id: digest };
    layers::unpack(fs::File::open(&blob).unwrap(), &source, &target, below, limits, &mut |_| {})?;
    Ok(target)
}

/// The parts of one image, to be written as a layout, perhaps after something was changed.
#[derive(Clone)]
pub struct Image {
    pub name: Option<String>,
    pub architecture: String,
    pub config: Value,
    /// Archive, the form it is distributed in, media type.
    pub layers: Vec<(Vec<u8>, Vec<u8>, String)>,
}

impl Image {
    pub fn new(name: &str) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({"Entrypoint": ["/bin/sh"], "Env": ["A=1"], "Cmd": null});
        Self { name: Some(name.into()), architecture: architecture.into(), config, layers: Vec::new() }
    }

    pub fn layer(self, tar: Tar) -> Self {
        let archive = tar.bytes();
        self.layer_as(archive.clone(), archive, "application/vnd.oci.image.layer.v1.tar")
    }

    pub fn layer_as(mut self, archive: Vec<u8>, blob: Vec<u8>, media_type: &str) -> Self {
        self.layers.push((archive, blob, media_type.into()));
        self
    }

    pub fn config_json(&self) -> Vec<u8> {
        let diff_ids: Vec<_> =
            self.layers.iter().map(|(archive, ..)| Digest::of(archive).to_string()).collect();
        let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
        let config = json!({"architecture": self.architecture, "os": "linux", "config": self.config, "rootfs": rootfs});
        config.to_string().into_bytes()
    }

    /// Puts the blobs into `files` and returns the descriptor of the manifest.
    pub fn add_to(&self, files: &mut Files) -> Value {
        let config = files.blob("application/vnd.oci.image.config.v1+json", &self.config_json());
        let layers: Vec<_> =
            self.layers.iter().map(|(_, blob, media_type)| files.blob(media_type, blob)).collect();
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string();
        let mut manifest = files.blob("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        if let Some(name) = &self.name {
            manifest["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        manifest
    }

    pub fn files(&self) -> Files {
        let mut files = Files::default();
        let manifest = self.add_to(&mut files);
        files.index(&[manifest]);
        files
    }
}

/// The files of a layout, by name.
#[derive(Default, Clone)]
pub struct Files(pub Vec<(String, Vec<u8>)>);

impl Files {
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        let name = format!("blobs/sha256/{}", digest.hex());
        if self.0.iter().all(|(known, _)| *known != name) {
            self.0.push((name, bytes.to_vec()));
        }
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub fn index(&mut self, manifests: &[Value]) {
        self.0.retain(|(name, _)| name != "index.json" && name != "oci-layout");
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        self.0.push(("index.json".into(), index.to_string().into_bytes()));
        self.0.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    }

    pub fn write_dir(&self, dir: &Path) -> PathBuf {
        for (name, bytes) in &self.0 {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        dir.to_owned()
    }

    pub fn tar(&self) -> Vec<u8> {
        let tar = self.0.iter().fold(Tar::default(), |tar, (name, bytes)| tar.file(name, bytes));
        tar.bytes()
    }
}

/// A store in a directory of its own, and room for the files to load.
pub struct World {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("content")).unwrap();
        Self { dir, store }
    }

    pub fn load(&self, files: &Files) -> Result<Vec<LoadedImage>, layout::Error> {
        self.load_bytes(&files.tar())
    }

    pub fn load_bytes(&self, bytes: &[u8]) -> Result<Vec<LoadedImage>, layout::Error> {
        let path = self.dir.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        layout::load(&self.store, &path, None, &mut |_, _| {})
    }

    /// The message of an error, without what differs from run to run.
    pub fn shown(&self, error: &dyn std::error::Error) -> String {
        error.to_string().replace(self.dir.path().to_str().unwrap(), "DIR")
    }

    /// Every file of the store, relative to it.
    pub fn content(&self) -> Vec<String> {
        let mut files = Vec::new();
        let mut dirs = vec![self.store.root().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    dirs.push(entry.path());
                }
                let path = entry.path();
                files.push(path.strip_prefix(self.store.root()).unwrap().to_str().unwrap().to_owned());
            }
        }
        files.sort();
        files
    }
}

/// A private mount namespace for the calling thread.
pub fn own_mounts() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}
