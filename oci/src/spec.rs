//! The OCI runtime spec of a container: safe by default, and the same on every host but for what [`Host`] says.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxIdMappingBuilder, LinuxNamespaceBuilder,
    LinuxNamespaceType, Mount, MountBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use crate::bundle::{Bind, IdMap, bind_source};
use crate::seccomp;

/// The search path of an image that names none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Open files and sockets that a container may have, where the host allows as many.
const NOFILE: u64 = 1_048_576;
/// What it may have at most where the agent lacks `CAP_SYS_RESOURCE`: some sandboxes allow no more.
const NOFILE_UNPRIVILEGED: u64 = 20_000;

/// Docker's set without `MKNOD`: no image that is to run on somebody else's machine needs to make devices.
const CAPABILITIES: [Capability; 13] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::Setfcap,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::SysChroot,
    Capability::AuditWrite,
];

/// What tells the host's secrets, or another container's doings.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/kernel/debug",
];

/// What would change the host.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a container is made from.
#[derive(Clone, Debug)]
pub struct SpecInput {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// `NAME=value`; a later one of the same name wins. `PATH` is added when it is missing.
    pub env: Vec<String>,
    /// The working directory; made when the image has none.
    pub cwd: PathBuf,
    /// The host name inside.
    pub hostname: String,
    /// The user namespace's ids; `None`: the host's user namespace.
    pub idmap: Option<IdMap>,
    /// The image's files cannot be changed, not even in the writable layer.
    pub read_only: bool,
    /// Added to the kernel's OOM badness: the higher, the sooner killed when the *host* runs short.
    pub oom_score_adj: i32,
    /// Where to find the network namespace that was made for the container (see `network`); `None`: it has the host's.
    pub network: Option<PathBuf>,
    /// Files of the host's, read-only: where they are, and where the container has them (see `network::files`).
    pub etc: Vec<(PathBuf, PathBuf)>,
    /// Capabilities beyond the usual ones. Another user than root has them too.
    pub capabilities: Vec<Capability>,
    /// Memory as directories.
    pub tmpfs: Vec<Tmpfs>,
    /// Those of the bundle, in the same order.
    pub binds: Vec<Bind>,
}

/// A directory in memory, which counts as that of whoever fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// In the container.
    pub target: PathBuf,
    /// The most that it holds.
    pub bytes: u64,
}

/// There is no such capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Linux has no capability `{0}`")]
pub struct UnknownCapability(pub String);

/// From its name, with `CAP_` or without.
pub fn capability(name: &str) -> Result<Capability, UnknownCapability> {
    let bare = name.strip_prefix("CAP_").unwrap_or(name);
    bare.parse().map_err(|_| UnknownCapability(name.to_string()))
}

/// What the host has, as far as a spec depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The agent may raise rlimits and lower OOM scores.
    pub sys_resource: bool,
    /// Pure cgroup v2: containers get a read-only view of their own cgroup.
    pub cgroup2: bool,
    /// The host's own limit on open files.
    pub nofile: u64,
}

impl Host {
    /// Look at this machine.
    pub fn detect() -> Host {
        const CAP_SYS_RESOURCE: u32 = 24;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status
            .lines()
            .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok());
        let here = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let nofile = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
        Host {
            sys_resource: effective.is_some_and(|caps| caps & (1 << CAP_SYS_RESOURCE) != 0),
            cgroup2: here,
            nofile: nofile.map_or(1024, |(_, hard)| hard),
        }
    }
}

/// The spec, a function of its arguments alone. Limits are not in it (the shim sets them itself, see `cgroup`), nor is
/// the user resolved (the shim does, in the container's own files).
pub fn build(input: &SpecInput, host: &Host) -> Result<Spec, OciSpecError> {
    let mut spec = unfiltered(input, host)?;
    if let Some(linux) = spec.linux_mut() {
        linux.set_seccomp(Some(seccomp::profile(&input.capabilities)?));
    }
    Ok(spec)
}

/// The same with all system calls allowed: to be compared with what other runtimes take without a filter.
pub fn unfiltered(input: &SpecInput, host: &Host) -> Result<Spec, OciSpecError> {
    let granted: HashSet<Capability> = input.capabilities.iter().copied().collect();
    let capabilities: HashSet<Capability> = granted.iter().copied().chain(CAPABILITIES).collect();
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(capabilities.clone())
        .effective(capabilities.clone())
        .permitted(capabilities)
        // What keeps its privileges over the execve of a program that is not root's.
        .inheritable(granted.clone())
        .ambient(granted)
        .build()?;
    let mut process = ProcessBuilder::default()
        .args(input.args.clone())
        .env(environment(&input.env))
        .cwd(&input.cwd)
        .user(UserBuilder::default().uid(0u32).gid(0u32).build()?)
        .capabilities(capabilities)
        .no_new_privileges(true)
        .rlimits(vec![nofile(host)?]);
    if input.oom_score_adj >= 0 || host.sys_resource {
        process = process.oom_score_adj(input.oom_score_adj);
    }

    let mut namespaces = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    if input.idmap.is_some() {
        namespaces.push(LinuxNamespaceType::User);
    }
    let namespaces: Result<Vec<_>, _> =
        namespaces.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build()).collect();
    let mut namespaces = namespaces?;
    if let Some(path) = &input.network {
        let network = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(path);
        namespaces.push(network.build()?);
    }
    let mut linux = LinuxBuilder::default()
        .namespaces(namespaces)
        .masked_paths(MASKED.map(String::from).to_vec())
        .readonly_paths(READ_ONLY.map(String::from).to_vec());
    if let Some(IdMap { host, size }) = input.idmap {
        let ids = vec![LinuxIdMappingBuilder::default().host_id(host).container_id(0u32).size(size).build()?];
        linux = linux.uid_mappings(ids.clone()).gid_mappings(ids);
    }

    let mut spec = SpecBuilder::default()
        .version("1.0.2")
        .root(RootBuilder::default().path("rootfs").readonly(input.read_only).build()?)
        .process(process.build()?)
        .hostname(&input.hostname)
        .mounts(mounts(input, host)?)
        .linux(linux.build()?)
        .build()?;
    // The builder's default resources would ask for cgroups that libcontainer is not shown.
    if let Some(linux) = spec.linux_mut() {
        linux.set_resources(None).set_cgroups_path(None).set_devices(None);
    }
    Ok(spec)
}

/// The last of each name, in the order of their first appearance.
fn environment(given: &[String]) -> Vec<String> {
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_string();
    let mut env: Vec<String> = Vec::new();
    for entry in std::iter::once(&PATH.to_string()).chain(given) {
        match env.iter_mut().find(|known| name(known) == name(entry)) {
            Some(known) => known.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    env
}

fn nofile(host: &Host) -> Result<PosixRlimit, OciSpecError> {
    let most = if host.sys_resource { NOFILE } else { NOFILE_UNPRIVILEGED.min(host.nofile) };
    PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(most).hard(most).build()
}

fn mounts(input: &SpecInput, host: &Host) -> Result<Vec<Mount>, OciSpecError> {
    let mount = |kind: &str, source: &Path, target: &Path, options: &[&str]| {
        MountBuilder::default()
            .typ(kind)
            .source(source)
            .destination(target)
            .options(options.iter().map(|o| o.to_string()).collect::<Vec<_>>())
            .build()
    };
    let fs =
        |kind: &str, target: &str, options: &[&str]| mount(kind, Path::new(kind), Path::new(target), options);
    let safe = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        fs("proc", "/proc", &safe)?,
        fs("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"])?,
        fs(
            "devpts",
            "/dev/pts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        )?,
        fs("mqueue", "/dev/mqueue", &safe)?,
        fs("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"])?,
        // A bind and not a new sysfs: in a user namespace only the owner of the network namespace may mount one. The
        // shim has taken away what is mounted below the host's.
        mount(
            "bind",
            Path::new("/sys"),
            Path::new("/sys"),
            &["rbind", "rro", "ro", "nosuid", "noexec", "nodev"],
        )?,
    ];
    if host.cgroup2 {
        mounts.push(fs("cgroup2", "/sys/fs/cgroup", &["ro", "nosuid", "noexec", "nodev"])?);
    }
    for (source, target) in &input.etc {
        mounts.push(mount("bind", source, target, &["bind", "ro", "nosuid", "noexec", "nodev"])?);
    }
    let mut more = Vec::new();
    for Tmpfs { target, bytes } in &input.tmpfs {
        let (options, source) = (format!("mode=1777,size={bytes}"), Path::new("tmpfs"));
        let options: Vec<&str> = ["nosuid", "nodev"].into_iter().chain(options.split(',')).collect();
        more.push(mount("tmpfs", source, target, &options)?);
    }
    for (n, bind) in input.binds.iter().enumerate() {
        // The shim has seen to what is forbidden in it.
        more.push(mount("bind", &bind_source(n), &bind.target, &["rbind"])?);
    }
    // What is mounted below another comes after it.
    more.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(more);
    Ok(mounts)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
