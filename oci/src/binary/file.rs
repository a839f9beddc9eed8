//! An image of a user's own static binary: `file:///path`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{Binary, make};
use crate::content::{self, Record, Store, now_ms};
use crate::layout::LoadedImage;
use crate::platform;
use crate::reference::Reference;

/// A file that no image can be made of.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} is {found}: file:// needs a static executable", path.display())]
    NotAFile { path: PathBuf, found: &'static str },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is a script: file:// needs a static executable, since nothing else is in the container; \
         put the script and its interpreter into an image",
        path.display()
    )]
    Script { path: PathBuf },
    #[error("{} is no executable of Linux (ELF)", path.display())]
    NotElf { path: PathBuf },
    #[error("{} is for {found}, this machine is {wanted}: build it for this machine", path.display())]
    Architecture { path: PathBuf, found: String, wanted: &'static str },
    #[error(
        "{} is linked dynamically (it needs {interpreter}), and nothing else is in the container: link it statically, \
         or put it into an image with its libraries",
        path.display()
    )]
    Dynamic { path: PathBuf, interpreter: String },
    #[error("{} is no program but a library or an object file", path.display())]
    NotAProgram { path: PathBuf },
    #[error(transparent)]
    Content(#[from] content::Error),
}

/// Makes an image of the static executable at `path`, unpacked too, flushed, and named `file/NAME:HASH`. Its
/// entrypoint is `/NAME`, the file's name. The same content under the same name gives the same digest, on every machine.
pub fn image_from_file(store: &Store, path: &Path) -> Result<LoadedImage, Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        let found = if meta.is_dir() { "a directory" } else { "no plain file" };
        return Err(Error::NotAFile { path: path.to_owned(), found });
    }
    let exe = File::open(path).map_err(failed)?;
    check(&exe, path)?;
    let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.len() <= NAME_MAX);
    let name = name.ok_or_else(|| Error::NotAFile { path: path.to_owned(), found: "of no usable name" })?;
    let mut lease = store.lease();
    let made = make(store, &mut lease, &exe, meta.len(), &Binary { exe: path, name, cmd: &[] })?;
    let reference = reference(name, &made.digest.hex());
    let root = File::open(store.root()).map_err(failed)?;
    // SAFETY: a plain system call on a descriptor that is open.
    if unsafe { libc::syncfs(root.as_raw_fd()) } != 0 {
        return Err(failed(io::Error::last_os_error()));
    }
    // As of its first making: the same again moves nothing.
    if store.record(&reference).is_none_or(|record| record.digest != made.digest || record.made.is_some()) {
        store.write_record(&Record {
            reference: reference.clone(),
            digest: made.digest,
            set_ms: now_ms(),
            made: None,
        })?;
    }
    Ok(LoadedImage { reference, digest: made.digest, size: made.size })
}

/// Of a name in a tar header.
const NAME_MAX: usize = 100;

/// A name by which the image is kept and shown: a reference has fewer letters than a file's name.
fn reference(name: &str, hex: &str) -> Reference {
    let plain = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let name: String = name.chars().map(plain).collect();
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "binary" } else { name };
    Reference::of_file(name, &hex[..12])
}

const CLASS_64: u8 = 2;
const EXECUTABLE: u16 = 2;
const SHARED: u16 = 3;
const INTERPRETER: u32 = 3;
const DYNAMIC: u32 = 2;
/// Real ones have a dozen.
const SEGMENTS_MAX: u16 = 256;
const PATH_MAX: u64 = 4096;

/// Reads the ELF header (System V ABI, chapter 4) and the program headers.
fn check(exe: &File, path: &Path) -> Result<(), Error> {
    let (io, path) = (|source| Error::Io { path: path.to_owned(), source }, path.to_owned());
    let mut header = [0; 64];
    let mut read = 0;
    while read < header.len() {
        match exe.read_at(&mut header[read..], read as u64).map_err(io)? {
            0 => break,
            n => read += n,
        }
    }
    if header.starts_with(b"#!") {
        return Err(Error::Script { path });
    }
    if read < header.len() || !header.starts_with(b"\x7fELF") {
        return Err(Error::NotElf { path });
    }
    // Little-endian: what this is built for is; a big-endian file is for another machine in any case.
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let machine = u16_at(18);
    if header[4] != CLASS_64 || header[5] != 1 || machine != MACHINE {
        let found = if header[5] == 1 { machine_name(machine) } else { machine_name(machine.swap_bytes()) };
        return Err(Error::Architecture { path, found, wanted: platform::architecture() });
    }
    if !matches!(u16_at(16), EXECUTABLE | SHARED) {
        return Err(Error::NotAProgram { path });
    }
    let u64_of = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (start, size, count) = (u64_of(&header[32..40]), u16_at(54), u16_at(56));
    if size < 56 || count > SEGMENTS_MAX {
        return Err(Error::NotElf { path });
    }
    let mut dynamic = false;
    for number in 0..count {
        let mut segment = [0; 56];
        let at = start.saturating_add(u64::from(number) * u64::from(size));
        exe.read_exact_at(&mut segment, at).map_err(|_| Error::NotElf { path: path.clone() })?;
        match u32::from_le_bytes([segment[0], segment[1], segment[2], segment[3]]) {
            INTERPRETER => {
                let mut text = vec![0; usize::try_from(u64_of(&segment[32..40]).min(PATH_MAX)).unwrap_or(0)];
                let found = exe.read_exact_at(&mut text, u64_of(&segment[8..16]));
                let text = found.map(|()| String::from_utf8_lossy(&text).trim_end_matches('\0').to_string());
                let interpreter = text.unwrap_or_else(|_| "an interpreter".into());
                return Err(Error::Dynamic { path, interpreter });
            }
            DYNAMIC => dynamic = true,
            _ => {}
        }
    }
    // A static executable that may lie anywhere is a shared object with an entry point.
    let entry = u64_of(&header[24..32]);
    if entry == 0 || (u16_at(16) == SHARED && !dynamic) {
        return Err(Error::NotAProgram { path });
    }
    Ok(())
}

/// `e_machine` of this machine.
const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

fn machine_name(machine: u16) -> String {
    match machine {
        3 => "386".into(),
        8 => "mips".into(),
        21 => "ppc64le".into(),
        22 => "s390x".into(),
        40 => "arm".into(),
        62 => "amd64".into(),
        183 => "arm64".into(),
        243 => "riscv64".into(),
        258 => "loong64".into(),
        other => format!("ELF machine {other}"),
    }
}
