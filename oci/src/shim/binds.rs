//! What a container sees of the host: volumes, files, devices.
//!
//! libcontainer mounts as the container's root, who may not pass every directory on the way (the agent's own, for one),
//! and may make no device. So all is made ready beforehand, below [`mounts::BINDS`].

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::inside::Inside;
use super::start::failed;
use super::{mounts, volume};
use crate::bundle::{Bind, BindKind, Failure, IdMap, bind_source};
use crate::rootfs::Part;

/// The binds of one container, found on the host.
pub(super) struct Binds<'a>(Vec<(&'a Bind, Found)>);

enum Found {
    Volume,
    Host { part: Part, directory: bool },
    Device { kind: SFlag, mode: u32, number: u64 },
}

/// Whose a container's files are.
#[derive(Clone, Copy)]
pub(super) struct Owner {
    pub(super) idmap: Option<IdMap>,
    /// The task's user and group, in the container's ids.
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// The host's id of the container's 0.
    pub(super) fn base(self) -> u32 {
        self.idmap.map_or(0, |map| map.host)
    }
}

impl Binds<'_> {
    /// To be called among the host's mounts: later some of them are hidden.
    pub(super) fn open(binds: &[Bind]) -> Result<Binds<'_>, Failure> {
        binds.iter().map(|bind| Ok((bind, find(bind)?))).collect::<Result<_, _>>().map(Binds)
    }

    /// Where the spec says. To be called in the private mount namespace, with the image mounted.
    pub(super) fn attach(&self, inside: &Inside, owner: Owner) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let room = || {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
            mount(Some("covey"), mounts::BINDS, Some("tmpfs"), flags, Some("mode=0755"))
        };
        room().map_err(|e| failed("make room for volumes", e, ""))?;
        for (n, (bind, found)) in self.0.iter().enumerate() {
            let target = bind_source(n);
            match found {
                Found::Volume => {
                    volume::fill(inside, bind, owner)?;
                    let open = || -> Result<(), Box<dyn std::error::Error>> {
                        let part = Part::owned(&bind.source, owner.idmap.as_ref())?;
                        fs::create_dir(&target)?;
                        Ok(part.attach(&target)?)
                    };
                    open().map_err(|e| failed(what(bind), e, ""))?;
                }
                Found::Host { part, directory } => {
                    let made =
                        if *directory { fs::create_dir(&target) } else { File::create(&target).map(drop) };
                    made.and_then(|()| part.attach(&target)).map_err(|e| failed(what(bind), e, ""))?;
                    hide_cgroups(&target).map_err(|e| failed(what(bind), e, ""))?;
                }
                Found::Device { kind, mode, number } => {
                    make_device(&target, *kind, *mode, *number, owner)
                        .map_err(|e| failed(what(bind), e, ""))?;
                }
            }
        }
        Ok(())
    }
}

fn what(bind: &Bind) -> String {
    match bind.kind {
        BindKind::Volume => format!("mount the volume {}", bind.target.display()),
        BindKind::Host => format!("mount the host's {}", bind.source.display()),
        BindKind::Device => format!("give the container the device {}", bind.source.display()),
    }
}

fn find(bind: &Bind) -> Result<Found, Failure> {
    if bind.kind == BindKind::Volume {
        return Ok(Found::Volume);
    }
    let missing = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => failed(
            what(bind),
            "this node has nothing there",
            "make it on every node that may run the task, or `require` a label that only those have",
        ),
        _ => failed(what(bind), e, ""),
    };
    let meta = fs::metadata(&bind.source).map_err(missing)?;
    if bind.kind == BindKind::Host {
        let part = Part::read_only(&bind.source).map_err(missing)?;
        return Ok(Found::Host { part, directory: meta.is_dir() });
    }
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => SFlag::S_IFCHR,
        kind if kind.is_block_device() => SFlag::S_IFBLK,
        _ => return Err(failed(what(bind), "it is no device", "name a character or block device")),
    };
    Ok(Found::Device { kind, mode: meta.mode() & 0o777, number: meta.rdev() })
}

/// libcontainer takes any cgroup file system that it sees for its own: see [`mounts`].
fn hide_cgroups(below: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let cgroups = mounts.lines().filter_map(|line| {
        let (mount, more) = line.split_once(" - ")?;
        let path = unescaped(mount.split(' ').nth(4)?);
        (more.starts_with("cgroup") && path.starts_with(below)).then_some(path)
    });
    for path in cgroups.collect::<Vec<_>>().iter().rev() {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

/// The kernel writes spaces and the like as `\040`.
fn unescaped(path: &str) -> PathBuf {
    let mut parts = path.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.extend(byte);
        bytes.extend(part.as_bytes().get(3..).unwrap_or_default());
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The node on the host may be another user's, whom the container does not know.
fn make_device(path: &Path, kind: SFlag, mode: u32, number: u64, owner: Owner) -> io::Result<()> {
    mknod(path, kind, Mode::from_bits_truncate(0o600), number)?;
    let base = owner.base();
    chown(path, Some(base + owner.uid), Some(base + owner.gid))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o600))
}
