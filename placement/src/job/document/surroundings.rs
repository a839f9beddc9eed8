//! The keys of a task that say what its container is like.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use super::{
    super::{
        container::{Class, Container, Io, Network, Privileges, Process, ProcessKind, Source, Volume},
        field::{DocumentError, Field, Keys, Table},
        name, quantity,
        signal::{Figure, Pressure, Signal},
    },
    DAY_MS, MAX_MEMORY, TASK_KEYS, amount, command, duration, path, unique, within,
};

const MAX_VOLUMES: usize = 32;
const MAX_PROCESSES: usize = 16;
const MAX_PIDS: u64 = 4 << 20;
const MAX_IOPS: u64 = 10_000_000;
const MIN_BANDWIDTH: u64 = 4096;
const MIN_LOG: u64 = 64 << 10;
const MAX_LOG: u64 = 1 << 40;

/// Those of Linux, up to 6.x.
const CAPABILITIES: &str = "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE \
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN \
    NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT \
    SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM";

const fn keys(known: &'static [&'static str]) -> Keys {
    Keys { known, later: &[], elsewhere: (TASK_KEYS, "it belongs below [task] itself") }
}

const IO: Keys = keys(&["iops", "bandwidth"]);
const VOLUME: Keys = keys(&["path", "name", "tmpfs", "host"]);
const PROCESS: Keys = keys(&["name", "kind", "command"]);
const PRIVILEGES: Keys = keys(&["capabilities", "devices", "host_users"]);

/// Reads those of the keys that are there over what `container` has already.
pub(super) fn read(table: &Table<'_>, container: &mut Container) -> Result<(), DocumentError> {
    if let Some(f) = table.get("user") {
        container.user = Some(user(&f)?);
    }
    if let Some(f) = table.get("workdir") {
        container.workdir = Some(absolute(&f)?);
    }
    if let Some(f) = table.get("network") {
        container.network = match f.text("a string")? {
            "host" => Network::Host,
            "private" => Network::Private,
            "none" => Network::None,
            other => return Err(f.error(format_args!("must be host, private or none, not `{other}`"), None)),
        };
    }
    if let Some(f) = table.get("pids") {
        container.pids = Some(f.whole(1..=MAX_PIDS)?);
    }
    if let Some(f) = table.get("io") {
        let io = f.table(&IO)?;
        let iops = io.get("iops").map(|f| f.whole(1..=MAX_IOPS)).transpose()?;
        let bandwidth = io.get("bandwidth").map(|f| bytes(&f, MIN_BANDWIDTH, MAX_MEMORY)).transpose()?;
        container.io = Io { iops, bandwidth };
    }
    if let Some(f) = table.get("class") {
        container.class = match f.text("a string")? {
            "latency" => Some(Class::Latency),
            "batch" => Some(Class::Batch),
            other => return Err(f.error(format_args!("must be latency or batch, not `{other}`"), None)),
        };
    }
    if let Some(f) = table.get("signal") {
        container.signal = Some(signal(&f)?);
    }
    if let Some(f) = table.get("logs") {
        container.log_bytes = Some(bytes(&f, MIN_LOG, MAX_LOG)?);
    }
    if let Some(f) = table.get("volumes") {
        container.volumes = volumes(&f)?;
    }
    if let Some(f) = table.get("process") {
        container.processes = processes(&f)?;
    }
    if let Some(f) = table.get("privileges") {
        container.privileges = privileges(&f)?;
    }
    Ok(())
}

const SIGNAL: Keys = keys(&["pressure", "http", "port", "metric", "above", "for"]);
const MAX_ABOVE: u64 = 1 << 53;

fn signal(f: &Field<'_>) -> Result<Signal, DocumentError> {
    let table = f.table(&SIGNAL)?;
    let of = match (table.get("pressure"), table.get("http")) {
        (Some(f), None) => Figure::Pressure {
            pressure: match f.text("a string")? {
                "cpu" => Pressure::Cpu,
                "memory" => Pressure::Memory,
                "io" => Pressure::Io,
                other => return Err(f.error(format_args!("must be cpu, memory or io, not `{other}`"), None)),
            },
        },
        (None, Some(f)) => Figure::Metric {
            http: path(&f)?,
            port: table.need("port", "name one of the task's ports")?.text("a string")?.to_string(),
            metric: metric(&table.need("metric", "name what it answers: metric = \"p99_ms\"")?)?,
        },
        _ => {
            let hint = "pressure = \"cpu\", or http = \"/metrics\" with port and metric".to_string();
            return Err(f.error("must have one of `pressure` and `http`", Some(hint)));
        }
    };
    let most = if matches!(of, Figure::Pressure { .. }) { 99 } else { MAX_ABOVE };
    let above = table.need("above", "say what is too much: above = 10")?.whole(0..=most)?;
    let for_ms = table.get("for").map_or(Ok(3_000), |f| duration(&f, 1_000..=DAY_MS))?;
    Ok(Signal { of, above, for_ms })
}

fn metric(f: &Field<'_>) -> Result<String, DocumentError> {
    let text = f.text("a string")?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b':';
    match (1..=200).contains(&text.len()) && text.bytes().all(fits) {
        true => Ok(text.to_string()),
        false => Err(f.error(format_args!("must be the name of a metric, not `{text}`"), None)),
    }
}

fn bytes(f: &Field<'_>, least: u64, most: u64) -> Result<u64, DocumentError> {
    let bytes = amount(f, "an amount such as \"64MiB\"", quantity::parse_bytes)?;
    within(f, bytes, least..=most, quantity::format_bytes)
}

fn user(f: &Field<'_>) -> Result<String, DocumentError> {
    let text = f.scalar("a user such as \"app\" or \"1000:1000\"")?;
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 64
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let mut parts = text.split(':');
    if parts.clone().count() <= 2 && parts.all(part) {
        return Ok(text);
    }
    Err(f.error(format_args!("must be USER or USER:GROUP, not `{text}`"), None))
}

/// An absolute path without `..`.
fn absolute(f: &Field<'_>) -> Result<String, DocumentError> {
    let text = f.text("a string")?;
    let clean = text.starts_with('/') && text.len() <= 4096 && !text.contains('\0');
    if clean && text.split('/').all(|part| part != "..") {
        return Ok(text.to_string());
    }
    Err(f.error(format_args!("must be an absolute path without `..`, not `{text}`"), None))
}

/// What makes a container one. Below `/dev` there is room for more: `/dev/shm` may be larger.
fn reserved(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    match (parts.next(), parts.next()) {
        (Some("proc" | "sys"), _) => true,
        (Some("dev"), below) => matches!(below, None | Some("pts")),
        _ => false,
    }
}

fn volumes(f: &Field<'_>) -> Result<Vec<Volume>, DocumentError> {
    let (mut out, mut paths, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for item in f.list("a list of tables such as [{ name = \"data\", path = \"/data\" }]", MAX_VOLUMES)? {
        let table = item.table(&VOLUME)?;
        let at = table.need("path", "say where it is mounted: path = \"/data\"")?;
        let path = absolute(&at)?;
        if path.split('/').all(|part| part.is_empty() || part == ".") {
            return Err(at.error("cannot be the whole root", None));
        }
        if reserved(&path) {
            let hint = "every container has these of its own";
            return Err(at.error(format_args!("cannot be `{path}`"), Some(hint.to_string())));
        }
        unique(&mut paths, &path, &at)?;
        let source = match (table.get("name"), table.get("tmpfs"), table.get("host")) {
            (Some(f), None, None) => {
                let text = f.text("a string")?;
                if !name::is_label(text) {
                    let hint = "a lower-case letter, then lower-case letters, digits and -, at most 63";
                    return Err(f.error(format_args!("cannot be `{text}`"), Some(hint.to_string())));
                }
                unique(&mut names, text, &f)?;
                Source::Name(text.to_string())
            }
            (None, Some(f), None) => Source::Tmpfs(bytes(&f, 4096, MAX_MEMORY)?),
            (None, None, Some(f)) => Source::Host(absolute(&f)?),
            _ => {
                let hint = "name = \"data\" stays with the task's index, tmpfs = \"64MiB\" is memory, host = \"/path\" is the node's";
                return Err(item.error("needs one of `name`, `tmpfs` and `host`", Some(hint.to_string())));
            }
        };
        out.push(Volume { path, source });
    }
    Ok(out)
}

fn processes(f: &Field<'_>) -> Result<Vec<Process>, DocumentError> {
    let (mut out, mut names) = (Vec::new(), Vec::new());
    for item in f.list("a list of tables, [[task.process]]", MAX_PROCESSES)? {
        let table = item.table(&PROCESS)?;
        let called = table.need("name", "give the process a name")?;
        let name = called.text("a string")?;
        if !name::is_label(name) || name == "main" {
            let hint = "a lower-case letter, then lower-case letters, digits and -; `main` is the task's own command";
            return Err(called.error(format_args!("cannot be `{name}`"), Some(hint.to_string())));
        }
        unique(&mut names, name, &called)?;
        let kind = table.need("kind", "say when it runs: init, side or final")?;
        let kind = match kind.text("a string")? {
            "init" => ProcessKind::Init,
            "side" => ProcessKind::Side,
            "final" => ProcessKind::Final,
            other => return Err(kind.error(format_args!("must be init, side or final, not `{other}`"), None)),
        };
        let words = table.need("command", "say what it runs: command = [\"/bin/prepare\"]")?;
        out.push(Process { name: name.to_string(), kind, command: command(&words)? });
    }
    Ok(out)
}

fn privileges(f: &Field<'_>) -> Result<Privileges, DocumentError> {
    let table = f.table(&PRIVILEGES)?;
    let mut out = Privileges::default();
    if let Some(f) = table.get("capabilities") {
        for (text, item) in f.texts("a list such as [\"NET_ADMIN\"]", 64)? {
            let name = text.strip_prefix("CAP_").unwrap_or(text);
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
                return Err(
                    item.error(format_args!("must be a capability such as NET_ADMIN, not `{text}`"), None)
                );
            }
            if !CAPABILITIES.split_whitespace().any(|known| known == name) {
                return Err(
                    item.error(format_args!("cannot be `{text}`: Linux has no such capability"), None)
                );
            }
            unique(&mut out.capabilities, name, &item)?;
        }
    }
    if let Some(f) = table.get("devices") {
        for (text, item) in f.texts("a list such as [\"/dev/kvm\"]", 64)? {
            let path = absolute(&item)?;
            if !path.starts_with("/dev/") {
                return Err(item.error(format_args!("must be below /dev, not `{text}`"), None));
            }
            unique(&mut out.devices, &path, &item)?;
        }
    }
    if let Some(f) = table.get("host_users") {
        out.host_users = f.value.as_bool().ok_or_else(|| f.error("must be true or false", None))?;
    }
    Ok(out)
}
