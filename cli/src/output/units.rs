//! Amounts, times and endings as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

/// An amount in words.
pub(super) type Unit = fn(u64) -> String;

/// The resources that tables show: heading, name, unit.
pub(super) const RESOURCES: [(&str, &str, Unit); 2] =
    [("CPU", "cpu_milli", cpu), ("MEMORY", "memory_bytes", bytes)];

/// Thousandths of a core: `250m`, `2`, `1.5`.
pub(super) fn cpu(milli: u64) -> String {
    match (milli / 1000, milli % 1000) {
        (0, 0) => "0".to_owned(),
        (0, milli) => format!("{milli}m"),
        (cores, 0) => cores.to_string(),
        (cores, rest) => format!("{cores}.{}", format!("{rest:03}").trim_end_matches('0')),
    }
}

/// `64.0 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64;
    let mut unit = 0;
    // 1023.96 would be shown as 1024.0.
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// A resource's amount; `-`: nobody knows it.
pub(super) fn amount(of: &Value, resource: &str, unit: Unit) -> String {
    of[resource].as_u64().map_or_else(|| "-".to_owned(), unit)
}

/// The age of a time, RFC 3339 or milliseconds since 1970: `3m`.
pub(super) fn age(time: &Value, now: SystemTime) -> String {
    let time = match time {
        Value::String(text) => humantime::parse_rfc3339_weak(text).ok(),
        other => other.as_u64().map(|ms| UNIX_EPOCH + std::time::Duration::from_millis(ms)),
    };
    let Some(time) = time else { return "-".to_owned() };
    // Clocks of two machines differ a little.
    let s = now.duration_since(time).unwrap_or_default().as_secs();
    match s {
        0..=119 => format!("{s}s ago"),
        120..=7199 => format!("{}m ago", s / 60),
        7200..=172_799 => format!("{}h ago", s / 3600),
        _ => format!("{}d ago", s / 86400),
    }
}

/// How a task ended, from `exit`: `exited with code 3`, `killed by signal 9, its memory limit reached`.
pub(crate) fn ended(exit: &Value) -> Option<String> {
    let how = match (exit["code"].as_i64(), exit["signal"].as_i64()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("killed by {}", signal_name(signal)),
        // It never ran.
        (None, None) if exit["cause"] == "exited" => return None,
        (None, None) => "ended".to_owned(),
    };
    let cause = match exit.as_object()?.get("cause")?.as_str()? {
        "exited" => return Some(how),
        "stopped" => "as it was told to",
        "unhealthy" => "since it was unhealthy",
        "oom.limit" => "its memory limit reached",
        "reclaimed" => "since the node needed its reclaimed room",
        "oom.host" => "since the machine ran out of memory",
        "preempted" => "for a task of higher priority",
        "disk" => "since the disk was full",
        "node_lost" => "its node is gone",
        "shim_lost" => "and how is not known: its shim was killed",
        other => other,
    };
    Some(format!("{how}, {cause}"))
}

fn signal_name(signal: i64) -> String {
    let known = i32::try_from(signal).ok().and_then(|n| nix::sys::signal::Signal::try_from(n).ok());
    known.map_or_else(|| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}
