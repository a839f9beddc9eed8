//! From what the core wants started to a shim on its way.

use std::{
    collections::BTreeMap,
    io::PipeReader,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
};

use oci::{
    bundle::{Bind, BindKind, Bundle, BundleConfig, IdMap},
    cgroup::{Band, Disk, Io, Limits},
    digest::Digest,
    network::{Namespace, files::Etc},
    quota::Quotas,
    spec::{self, SpecInput},
    supervisor::{self, Named, Processes},
};
use placement::{
    ids::JobKey,
    job::{
        self,
        container::{Class, Container, ProcessKind},
    },
    resources::{CPU, DISK, MEMORY, Resources},
};
use tokio::task::spawn_blocking;

use super::{Ground, network::Wired, surroundings};
use crate::{event::StartRun, logs};

/// Why nothing was started.
pub(super) struct Failure {
    pub(super) why: String,
    /// Trying again may help.
    pub(super) transient: bool,
}

/// Owners' user ids begin above those that systemd gives to its own containers.
const FIRST_UID: u32 = 0x7000_0000;
/// Ids of each owner.
const UIDS: u32 = 0x1_0000;
const OWNERS: u32 = 0x0fff;
/// Disk that each stream of a run's log may take.
const LOG_CAP: u64 = 64 << 20;
/// The annotation of a spec that names the signal which asks its container to end.
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";
/// Processes that a task may have.
const PIDS: u64 = 4096;

/// The first of the ports that somebody else listens on. The container binds it a moment later: what happens between is
/// seen as a failed start.
pub(super) fn busy_port(ports: impl Iterator<Item = u16>) -> Option<u16> {
    ports.into_iter().find(|port| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port))
            .is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse)
    })
}

/// Makes the bundle in `dir` and has its shim started, which announces on the pipe how that went.
pub(super) async fn spawn(
    ground: &Arc<Ground>,
    start: StartRun,
    dir: PathBuf,
) -> Result<(Bundle, PipeReader, Wired), Failure> {
    let idmap = match ground.idmaps && !start.container.privileges.host_users {
        true => Some(idmap(ground, &start.owner).await?),
        false => None,
    };
    let ground = ground.clone();
    let (owner, name) = (start.owner.clone(), start.name.clone());
    let made = spawn_blocking(move || {
        let wired = ground.wire(&start)?;
        let etc = Etc::new(Bundle::at(&dir).etc(), &start.hostname, wired.whose());
        let (config, spec) = bundle(&ground, &start, idmap, &wired, etc.mounts.clone())?;
        // Left by an earlier try of this very run that was cut short.
        let _ = std::fs::remove_dir_all(&dir);
        let bundle = ground.stock.create(dir, &config, &spec).map_err(transient)?;
        if let (Some(quotas), Some(project)) = (&ground.quotas, config.project)
            && let Some(bytes) = layer(&start.limit, &start.container)
            && let Err(error) = quotas.hold(&bundle, project, bytes)
        {
            tracing::warn!("{}: its disk is measured, and not held to a quota: {error}", config.run);
        }
        etc.write().map_err(transient)?;
        let job = JobKey { owner, name };
        logs::mark(&bundle.log(), &job).map_err(transient)?;
        surroundings::allow_devices(&config)?;
        let announcement = ground.server.spawn(bundle.dir(), &config.cgroup).map_err(transient)?;
        Ok((bundle, announcement, wired))
    });
    made.await.unwrap_or_else(|_| Err(Failure { why: "the start broke off".into(), transient: true }))
}

async fn idmap(ground: &Ground, owner: &str) -> Result<IdMap, Failure> {
    let number = ground.store.owner(owner.to_string()).await.map_err(transient)?;
    if number >= OWNERS {
        let why = format!("this node has no range of user ids left for {owner} (it has {OWNERS})");
        return Err(Failure { why, transient: false });
    }
    Ok(IdMap { host: FIRST_UID + number * UIDS, size: UIDS })
}

fn bundle(
    ground: &Ground,
    start: &StartRun,
    idmap: Option<IdMap>,
    wired: &Wired,
    etc: Vec<(PathBuf, PathBuf)>,
) -> Result<(BundleConfig, oci_spec::runtime::Spec), Failure> {
    let digest = Digest::from_str(&start.digest).map_err(lasting)?;
    let image = ground.images.store().image(&digest).map_err(lasting)?;
    let layers = ground.images.store().ensure_unpacked(&digest).map_err(lasting)?;
    let env = environment(&image.env, &start.env).map_err(lasting)?;
    let args = match &start.command {
        Some(command) => expanded(command, &env)?,
        None => image.entrypoint.iter().chain(&image.cmd).cloned().collect(),
    };
    if args.is_empty() {
        let why = "the image names no program and the job has no command: set task.command".to_string();
        return Err(Failure { why, transient: false });
    }
    let container = &start.container;
    let mut surroundings = surroundings::of(ground, start, &image.volumes)?;
    let args = match container.processes.is_empty() {
        true => args,
        false => {
            let (source, target) = (ground.exe.clone(), supervisor::PATH.into());
            surroundings.binds.push(Bind { source, target, kind: BindKind::Host });
            supervised(args, start, &env)?
        }
    };
    let cwd = match container.workdir.as_deref().unwrap_or(&image.working_dir) {
        "" => "/",
        dir => dir,
    };
    let input = SpecInput {
        args,
        env: env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
        cwd: cwd.into(),
        hostname: start.hostname.clone(),
        idmap,
        read_only: false,
        oom_score_adj: oom_score(start.band),
        network: wired.namespace.as_ref().map(Namespace::path),
        etc,
        capabilities: surroundings.capabilities,
        tmpfs: surroundings.tmpfs,
        binds: surroundings.binds.clone(),
    };
    let mut spec = spec::build(&input, &ground.host).map_err(lasting)?;
    if let Some(signal) = image.stop_signal {
        spec.set_annotations(Some([(STOP_SIGNAL.to_string(), signal)].into()));
    }
    let run = start.run.to_string();
    let limits = limits(ground, start.band, &start.limit, container);
    let config = BundleConfig {
        version: oci::bundle::VERSION,
        cgroup: {
            let on = band(start.band);
            let cgroup = match container.privileges.devices.is_empty() {
                true => ground.tree.placement(on, &run),
                false => ground.tree.placement_with_devices(on, &run),
            };
            ground.tree.with_io(cgroup, &limits)
        },
        run,
        layers,
        idmap,
        user: container.user.clone().or(Some(image.user)).filter(|u| !u.is_empty()),
        limits,
        log_cap_bytes: container.log_bytes.unwrap_or(LOG_CAP),
        network: wired.attachment.clone(),
        binds: surroundings.binds,
        project: layer(&start.limit, container).and(ground.quotas.as_ref()).map(Quotas::project),
    };
    Ok((config, spec))
}

fn expanded(words: &[String], env: &BTreeMap<String, String>) -> Result<Vec<String>, Failure> {
    words.iter().map(|word| job::expand::expand(word, env)).collect::<Result<_, _>>().map_err(lasting)
}

/// What runs first in a container with several processes, and looks after them.
fn supervised(
    main: Vec<String>,
    start: &StartRun,
    env: &BTreeMap<String, String>,
) -> Result<Vec<String>, Failure> {
    let of = |kind: ProcessKind| {
        let processes = start.container.processes.iter().filter(move |p| p.kind == kind);
        let named =
            processes.map(|p| Ok(Named { name: p.name.clone(), command: expanded(&p.command, env)? }));
        named.collect::<Result<Vec<Named>, Failure>>()
    };
    let processes = Processes {
        main,
        init: of(ProcessKind::Init)?,
        side: of(ProcessKind::Side)?,
        last: of(ProcessKind::Final)?,
        grace_ms: start.grace_ms,
    };
    let given = serde_json::to_string(&processes).map_err(lasting)?;
    Ok(vec![supervisor::PATH.to_string(), given])
}

/// The signal that asks a run to end: its image's, else SIGTERM.
pub(super) fn stop_signal(bundle: &Bundle) -> i32 {
    let spec = bundle.spec().ok();
    let named = spec.as_ref().and_then(|spec| spec.annotations().as_ref()?.get(STOP_SIGNAL));
    named.and_then(|name| signal_number(name)).unwrap_or(libc::SIGTERM)
}

/// `SIGQUIT`, `QUIT`, `3`, `SIGRTMIN+3`.
fn signal_number(name: &str) -> Option<i32> {
    let name = name.trim().to_ascii_uppercase();
    let bare = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = || Some(libc::SIGRTMIN() + bare.strip_prefix("RTMIN+")?.parse::<i32>().ok()?);
    let known = || format!("SIG{bare}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32);
    let number = bare.parse().ok().or_else(known).or_else(real_time)?;
    (1..=64).contains(&number).then_some(number)
}

/// Bytes that a task's writable layer may take where the file system can hold it to that: its limit less what its logs may
/// take, which nobody can tell to stop, or half of it.
pub(super) fn layer(limit: &Resources, container: &Container) -> Option<u64> {
    let (all, logs) = (limit.get(DISK), 2 * container.log_bytes.unwrap_or(LOG_CAP));
    (all > 0).then(|| all.saturating_sub(logs).max(all / 2))
}

/// What a container may use at most.
pub(super) fn limits(ground: &Ground, band: job::Band, limit: &Resources, container: &Container) -> Limits {
    let some = |name| limit.0.get(name).copied().filter(|n| *n > 0);
    let io = container.io;
    let disk = if io.is_free() { None } else { Disk::of(&ground.bundles) };
    Limits {
        cpu_milli: some(CPU),
        memory_bytes: some(MEMORY),
        pids: Some(container.pids.unwrap_or(PIDS)),
        io: Io { iops: io.iops, bandwidth: io.bandwidth, disk },
        yields: band.is_prod() && container.class == Some(Class::Batch),
    }
}

/// The image's variables under covey's and the job's. The job's may refer to the others.
fn environment(
    image: &[String],
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, job::expand::BadExpansion> {
    let ours = |name: &str| name.starts_with("COVEY_") || name.starts_with("PORT_");
    let mut env: BTreeMap<String, String> = image
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| !ours(name))
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect();
    let (own, jobs): (Vec<_>, Vec<_>) = given.iter().partition(|(name, _)| ours(name));
    env.extend(own.into_iter().map(|(n, v)| (n.clone(), v.clone())));
    let expanded: Vec<_> = jobs
        .into_iter()
        .map(|(n, v)| Ok((n.clone(), job::expand::expand(v, &env)?)))
        .collect::<Result<_, _>>()?;
    env.extend(expanded);
    Ok(env)
}

pub(crate) fn band(band: job::Band) -> Band {
    match band {
        job::Band::Free => Band::Free,
        job::Band::Batch => Band::Batch,
        job::Band::Production => Band::Production,
        job::Band::Monitoring => Band::Monitoring,
    }
}

/// Whom the kernel takes first, should it ever have to choose: the lowest band. An agent may be unable to lower its own.
fn oom_score(band: job::Band) -> i32 {
    match band {
        job::Band::Free => 1000,
        job::Band::Batch => 800,
        job::Band::Production => 300,
        job::Band::Monitoring => 200,
    }
}

pub(super) fn transient(error: impl ToString) -> Failure {
    Failure { why: error.to_string(), transient: true }
}

pub(super) fn lasting(error: impl ToString) -> Failure {
    Failure { why: error.to_string(), transient: false }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn a_job_builds_on_the_images_variables_and_cannot_pass_for_another() {
        let image = ["PATH=/bin".to_string(), "COVEY_JOB=spoof".to_string(), "LANG=C".to_string()];
        let given = map(&[
            ("PATH", "${PATH}:/opt"),
            ("URL", "http://:${PORT_http}"),
            ("PORT_http", "20000"),
            ("COVEY_JOB", "web"),
        ]);
        let env = environment(&image, &given).unwrap();
        let wanted = map(&[
            ("COVEY_JOB", "web"),
            ("LANG", "C"),
            ("PATH", "/bin:/opt"),
            ("PORT_http", "20000"),
            ("URL", "http://:20000"),
        ]);
        assert_eq!(env, wanted);
        assert!(environment(&[], &map(&[("A", "${NOWHERE}")])).is_err());
    }

    #[test]
    fn images_name_signals_in_many_ways() {
        for (name, number) in [
            ("SIGQUIT", Some(libc::SIGQUIT)),
            ("quit", Some(libc::SIGQUIT)),
            ("3", Some(3)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("SIGNOTHING", None),
            ("0", None),
        ] {
            assert_eq!(signal_number(name), number, "{name}");
        }
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_busy() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(busy_port([port].into_iter()), Some(port));
        drop(taken);
        assert_eq!(busy_port([port].into_iter()), None);
    }
}
