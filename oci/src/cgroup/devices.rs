//! Which devices containers may use: a list on v1, an attached program on v2. Both are set on the bands' directories,
//! once, and hold for every cgroup made below; a run that was granted others has a list or program of its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use super::Error;
use super::apply::write;

/// A device of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// A block device, else a character device.
    pub block: bool,
    /// The driver.
    pub major: u32,
    /// Which of the driver's; none: all of them.
    pub minor: Option<u32>,
}

impl Device {
    /// The one that a node is for; none if the file is no device's node.
    pub fn of(path: &Path) -> io::Result<Option<Device>> {
        let meta = fs::metadata(path)?;
        let (block, char) = (meta.file_type().is_block_device(), meta.file_type().is_char_device());
        let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
        Ok((block || char).then_some(Device { block, major, minor: Some(minor) }))
    }
}

const fn char(major: u32, minor: Option<u32>) -> Device {
    Device { block: false, major, minor }
}

/// null zero full random urandom, tty console ptmx, and pseudo terminals.
const ALLOWED: [Device; 9] = [
    char(1, Some(3)),
    char(1, Some(5)),
    char(1, Some(7)),
    char(1, Some(8)),
    char(1, Some(9)),
    char(5, Some(0)),
    char(5, Some(1)),
    char(5, Some(2)),
    char(136, None),
];

/// In a v1 `devices` hierarchy, to the usual devices and `more`.
pub(super) fn restrict_v1(dir: &Path, more: &[Device]) -> Result<(), Error> {
    // With children, as on an agent's second start, the list cannot be begun anew, and is as we left it.
    let list = fs::read_to_string(dir.join("devices.list")).unwrap_or_default();
    if !list.starts_with('a') {
        return Ok(());
    }
    write(&dir.join("devices.deny"), "a")?;
    ALLOWED.iter().chain(more).try_for_each(|Device { block, major, minor }| {
        let minor = minor.map_or("*".to_string(), |minor| minor.to_string());
        let kind = if *block { 'b' } else { 'c' };
        write(&dir.join("devices.allow"), &format!("{kind} {major}:{minor} rwm"))
    })
}

/// In the unified hierarchy, with or without controllers. A program that was attached before is replaced.
pub(super) fn restrict_v2(dir: &Path, more: &[Device]) -> Result<(), Error> {
    let attach = || attach(&File::open(dir)?, &load(&program(more))?);
    attach().map_err(|source| Error::Io { op: "attach a device filter to", path: dir.into(), source })
}

/// `struct bpf_insn`: eight bytes of operation, registers (source high, destination low), jump offset, constant.
#[repr(C)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    constant: i32,
}

fn insn(code: u8, registers: u8, offset: i16, constant: u32) -> Insn {
    Insn { code, registers, offset, constant: constant as i32 }
}

/// `r0 = 1` for what is allowed, else `r0 = 0`. Register 1 points at `struct bpf_cgroup_dev_ctx`: kind of device in the low half
/// of the first word, major and minor in the second and third.
fn program(more: &[Device]) -> Vec<Insn> {
    const LOAD_WORD: u8 = 0x61;
    const AND: u8 = 0x57;
    const JUMP_UNLESS_EQUAL: u8 = 0x55;
    const SET: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    const BLOCK: u32 = 1;
    const CHARACTER: u32 = 2;
    const KIND: u8 = 2;
    const MAJOR: u8 = 3;
    const MINOR: u8 = 4;
    let from_context = 1 << 4;

    let mut program = vec![
        insn(LOAD_WORD, from_context | KIND, 0, 0),
        insn(AND, KIND, 0, 0xffff),
        insn(LOAD_WORD, from_context | MAJOR, 4, 0),
        insn(LOAD_WORD, from_context | MINOR, 8, 0),
    ];
    for Device { block, major, minor } in ALLOWED.iter().chain(more) {
        let kind = if *block { BLOCK } else { CHARACTER };
        let tests = [Some((KIND, kind)), Some((MAJOR, *major)), minor.map(|minor| (MINOR, minor))];
        let tests: Vec<(u8, u32)> = tests.into_iter().flatten().collect();
        for (done, (register, value)) in tests.iter().enumerate() {
            // Each test jumps over what is left of its device: the other tests, and the two that say yes.
            let left = tests.len() - done - 1 + 2;
            program.push(insn(JUMP_UNLESS_EQUAL, *register, left as i16, *value));
        }
        program.extend([insn(SET, 0, 0, 1), insn(EXIT, 0, 0, 0)]);
    }
    program.extend([insn(SET, 0, 0, 0), insn(EXIT, 0, 0, 0)]);
    program
}

/// The leading fields of `union bpf_attr` for loading; the kernel takes the rest as zero.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The same for attaching.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the attributes are those of the command, of the size given, and what they point at outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn load(program: &[Insn]) -> io::Result<OwnedFd> {
    const PROG_LOAD: libc::c_int = 5;
    const CGROUP_DEVICE: u32 = 15;
    let attributes = Load {
        kind: CGROUP_DEVICE,
        instructions: program.len() as u32,
        program: program.as_ptr() as u64,
        licence: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    let fd = bpf(PROG_LOAD, &attributes)?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The program stays for as long as the cgroup does. One attached below it takes its place there.
fn attach(cgroup: &File, program: &OwnedFd) -> io::Result<()> {
    const PROG_ATTACH: libc::c_int = 8;
    const PROG_DETACH: libc::c_int = 9;
    const CGROUP_DEVICE: u32 = 6;
    const ALLOW_OVERRIDE: u32 = 1;
    let (target, program) = (cgroup.as_raw_fd() as u32, program.as_raw_fd() as u32);
    let attributes = Attach { target, program, kind: CGROUP_DEVICE, flags: ALLOW_OVERRIDE };
    let Err(error) = bpf(PROG_ATTACH, &attributes) else { return Ok(()) };
    if error.raw_os_error() != Some(libc::EPERM) {
        return Err(error);
    }
    // Attached by an earlier release, which let none take its place.
    bpf(PROG_DETACH, &Attach { program: 0, flags: 0, ..attributes })?;
    bpf(PROG_ATTACH, &attributes).map(drop)
}
