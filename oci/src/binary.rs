//! An image made of one static executable: `hello:1` of the agent's own, or a user's (`file`).

mod file;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

pub use self::file::{Error as FileError, image_from_file};

use crate::content::documents::{
    CONFIG, Descriptor, ImageConfig, LAYER_TAR, MANIFEST, Manifest, RootFs, RunConfig,
};
use crate::content::{Error, Flush, Lease, Made, Record, Store, boot_id, now_ms};
use crate::digest::{Digest, Hasher};
use crate::layout::LoadedImage;
use crate::platform;
use crate::reference::Reference;

const CHUNK: usize = 1 << 20;
/// Part of the stamp: another way of making the image needs another number.
const FORM: u32 = 1;

/// What the image is made of. The same values give the same digest, on every machine.
#[derive(Debug, Clone)]
pub struct Binary<'a> {
    /// The executable; it must need no other file.
    pub exe: &'a Path,
    /// Its name in the image's root directory, which is also the entrypoint: `hello` becomes `/hello`.
    pub name: &'a str,
    /// Default arguments.
    pub cmd: &'a [&'a str],
}

/// Makes the image, unpacked too, and names it `reference`. Made again only when the executable has changed.
///
/// Nothing is flushed to disk: all of it can be made again, and is after the next boot (`content::Made`), so that a
/// first task need not wait for the disk.
pub fn image_from_binary(
    store: &Store,
    binary: &Binary<'_>,
    reference: &Reference,
) -> Result<LoadedImage, Error> {
    let exe = File::open(binary.exe).map_err(Error::io("open the executable", binary.exe))?;
    let meta = exe.metadata().map_err(Error::io("look at the executable", binary.exe))?;
    let stamp = format!(
        "{FORM} {}:{} {} {}.{:09} {:?} {:?}",
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        binary.name,
        binary.cmd
    );
    if let Some(image) = made_before(store, reference, &stamp) {
        return Ok(image);
    }
    let mut lease = store.lease();
    let made = make(store, &mut lease, &exe, meta.len(), binary)?;
    store.write_record(&Record {
        reference: reference.tagged(),
        digest: made.digest,
        set_ms: now_ms(),
        made: Some(Made { stamp, boot: boot_id()?, content: made.content }),
    })?;
    Ok(LoadedImage { reference: reference.tagged(), digest: made.digest, size: made.size })
}

/// What was made, and nothing of it named yet nor flushed.
pub(crate) struct Unnamed {
    /// Of the manifest.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Paths relative to the store.
    content: Vec<PathBuf>,
}

/// The image's blobs and its layer unpacked. The lease holds them.
pub(crate) fn make(
    store: &Store,
    lease: &mut Lease,
    exe: &File,
    len: u64,
    binary: &Binary<'_>,
) -> Result<Unnamed, Error> {
    let (layer, layer_dir) = write_layer(store, lease, exe, len, binary)?;
    let config = ImageConfig {
        architecture: platform::architecture().into(),
        os: "linux".into(),
        config: Some(RunConfig {
            entrypoint: vec![format!("/{}", binary.name)],
            cmd: binary.cmd.iter().map(|arg| (*arg).to_owned()).collect(),
            ..RunConfig::default()
        }),
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![layer.digest] },
    };
    let config = write_document(store, lease, CONFIG, &config)?;
    let blobs = [layer.digest, config.digest];
    let size = layer.size + config.size;
    let manifest =
        Manifest { schema_version: 2, media_type: Some(MANIFEST.into()), config, layers: vec![layer] };
    let manifest = write_document(store, lease, MANIFEST, &manifest)?;
    let relative = |path: &Path| path.strip_prefix(store.root()).map(Path::to_owned).unwrap_or_default();
    let mut content: Vec<PathBuf> = blobs.iter().map(|blob| relative(&store.blob_path(blob))).collect();
    content.extend([relative(&store.blob_path(&manifest.digest)), relative(&layer_dir)]);
    Ok(Unnamed { digest: manifest.digest, size: size + manifest.size, content })
}

/// The image, if it was made of this very file and nothing of it has gone since.
fn made_before(store: &Store, reference: &Reference, stamp: &str) -> Option<LoadedImage> {
    let record = store.record(reference)?;
    let made = record.made.filter(|made| made.stamp == stamp)?;
    if !made.content.iter().all(|path| store.root().join(path).exists()) {
        return None;
    }
    let size = store.image(&record.digest).ok()?.size;
    Some(LoadedImage { reference: record.reference, digest: record.digest, size })
}

/// Writes the layer's blob and, beside that, the layer unpacked. Its one entry needs no compression: the blob
/// is then the diff that the config names, and hashed once.
fn write_layer(
    store: &Store,
    lease: &mut Lease,
    exe: &File,
    len: u64,
    binary: &Binary<'_>,
) -> Result<(Descriptor, PathBuf), Error> {
    let mut blob = store.temp();
    let dir = store.temp();
    let ((digest, size), file) = std::thread::scope(|scope| {
        let unpacking = scope.spawn(|| write_unpacked(exe, len, dir.path(), binary));
        let written = write_archive(exe, len, blob.path(), binary);
        let unpacked = unpacking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        unpacked.and(written)
    })?;
    let path = store.layer_path(&digest);
    lease.hold(&digest);
    store.adopt_blob(&mut blob, &file, &digest, Flush::Later)?;
    match fs::rename(dir.path(), &path) {
        // The same layer is there, of this content since that is its name.
        Err(_) if path.is_dir() => {}
        renamed => renamed.map_err(Error::io("name the layer", &path))?,
    }
    Ok((
        Descriptor {
            media_type: LAYER_TAR.into(),
            digest,
            size,
            platform: None,
            annotations: Default::default(),
        },
        path,
    ))
}

fn write_archive(
    exe: &File,
    len: u64,
    path: &Path,
    binary: &Binary<'_>,
) -> Result<((Digest, u64), File), Error> {
    let mut header = Header::new_ustar();
    header.set_path(binary.name).map_err(Error::io("name in the archive the executable", binary.exe))?;
    header.set_entry_type(EntryType::Regular);
    header.set_size(len);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    let mut file = File::create_new(path).map_err(Error::io("make the file", path))?;
    let mut hasher = Hasher::default();
    let mut write = |bytes: &[u8]| file.write_all(bytes).and_then(|()| hasher.write_all(bytes));
    let written = (|| {
        write(header.as_bytes())?;
        copy(exe, len, &mut write)?;
        // Fills the last block; two empty blocks end the archive.
        write(&vec![0; (512 - len as usize % 512) % 512 + 1024])
    })();
    written.map_err(Error::io("write the layer of the executable", binary.exe))?;
    Ok((hasher.finish(), file))
}

fn write_unpacked(exe: &File, len: u64, dir: &Path, binary: &Binary<'_>) -> Result<(), Error> {
    DirBuilder::new().mode(0o755).create(dir).map_err(Error::io("make the directory", dir))?;
    let path = dir.join(binary.name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path)?;
        copy(exe, len, &mut |bytes| file.write_all(bytes))?;
        // What the umask took away.
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.set_modified(std::time::UNIX_EPOCH)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
    })();
    written.map_err(Error::io("write the unpacked executable", &path))
}

fn copy(exe: &File, len: u64, write: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < len {
        let wanted = usize::try_from(len - offset).unwrap_or(CHUNK).min(CHUNK);
        let n = exe.read_at(&mut buffer[..wanted], offset)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write(&buffer[..n])?;
        offset += n as u64;
    }
    Ok(())
}

fn write_document(
    store: &Store,
    lease: &mut Lease,
    media_type: &str,
    document: &impl serde::Serialize,
) -> Result<Descriptor, Error> {
    let bytes =
        serde_json::to_vec(document).map_err(|error| Error::io("encode", media_type)(error.into()))?;
    let digest = Digest::of(&bytes);
    let mut temp = store.temp();
    let mut file = File::create_new(temp.path()).map_err(Error::io("make the file", temp.path()))?;
    file.write_all(&bytes).map_err(Error::io("write the blob", temp.path()))?;
    lease.hold(&digest);
    store.adopt_blob(&mut temp, &file, &digest, Flush::Later)?;
    let (media_type, size) = (media_type.to_owned(), bytes.len() as u64);
    Ok(Descriptor { media_type, digest, size, platform: None, annotations: Default::default() })
}
