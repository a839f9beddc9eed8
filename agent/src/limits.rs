//! What the kernel allows an agent: raised where that is possible, told once where it is short. Never a reason to stop.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Open files that an agent with many tasks wants. More than this some hosts refuse even to root.
const NOFILE: u64 = 20_000;
/// Below so many processes a node of many tasks may run out.
const PID_MAX: u64 = 32_768;
/// Watches by which followers learn of new log lines and certificates.
const INOTIFY_INSTANCES: u64 = 128;

/// Raises what can be raised; a sentence for each thing that stays short.
pub fn prepare() -> Vec<String> {
    let mut warnings = Vec::new();
    if let Err(warning) = raise_open_files() {
        warnings.push(warning);
    }
    warnings.extend(short("/proc/sys/kernel/pid_max", PID_MAX, "processes", "kernel.pid_max"));
    warnings.extend(short(
        "/proc/sys/fs/inotify/max_user_instances",
        INOTIFY_INSTANCES,
        "inotify instances",
        "fs.inotify.max_user_instances",
    ));
    warnings
}

fn raise_open_files() -> Result<(), String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|e| format!("cannot read the limit of open files: {e}"))?;
    if soft >= NOFILE {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, NOFILE, hard.max(NOFILE)).or_else(|_| {
        // Without CAP_SYS_RESOURCE the hard limit is all there is.
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(NOFILE), hard)
    });
    match raised {
        Ok(()) if hard >= NOFILE || getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(s, _)| s >= NOFILE) => {
            Ok(())
        }
        _ => Err(format!(
            "only {} files may be open at once; with hundreds of tasks that is short (LimitNOFILE={NOFILE} in a unit)",
            hard.max(soft)
        )),
    }
}

fn short(path: &str, wanted: u64, what: &str, sysctl: &str) -> Option<String> {
    let has: u64 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (has < wanted)
        .then(|| format!("the kernel allows {has} {what}; many tasks need more: sysctl -w {sysctl}={wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_limit_says_which_and_how_to_raise_it() {
        let warning = short("/proc/sys/kernel/pid_max", u64::MAX, "processes", "kernel.pid_max");
        assert!(warning.is_some_and(|w| w.contains("sysctl -w kernel.pid_max=")));
        assert_eq!(short("/proc/sys/kernel/pid_max", 1, "processes", "kernel.pid_max"), None);
        assert_eq!(short("/proc/no/such/file", 1, "things", "a.b"), None);
    }
}
