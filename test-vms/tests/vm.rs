//! The machine that other tests stand on: a stock kernel with a pure cgroup v2 tree.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use test_vms::vm::Vm;

/// Many times what it takes, for a machine that is busy with other tests.
const TIMEOUT: Duration = Duration::from_secs(180);

#[test]
fn it_has_pure_cgroup_v2_with_limits_that_hold() {
    let output = Vm::new()
        .script(
            r#"
            uname -r
            grep -c cgroup /proc/mounts
            awk '$2 == "/sys/fs/cgroup" { print $3 }' /proc/mounts
            cat /sys/fs/cgroup/cgroup.controllers
            echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
            mkdir /sys/fs/cgroup/limited
            echo 16M > /sys/fs/cgroup/limited/memory.max
            # A shell that outgrows its limit is killed by the kernel, which says so in the cgroup.
            sh -c 'echo $$ > /sys/fs/cgroup/limited/cgroup.procs; dd if=/dev/zero of=/dev/null bs=64M count=1' 2>/dev/null
            grep oom_kill /sys/fs/cgroup/limited/memory.events
            grep overlay /proc/filesystems
            exit 7"#,
        )
        .run(TIMEOUT)
        .unwrap();
    println!("{output:?}");
    assert_eq!(output.status, 7, "{}", output.said);
    let lines: Vec<&str> = output.said.lines().collect();
    assert!(lines[0].contains("cloud"), "a stock kernel: {}", lines[0]);
    assert_eq!(lines[1], "1", "one cgroup mount");
    assert_eq!(lines[2], "cgroup2");
    for controller in ["cpu", "memory", "pids"] {
        assert!(lines[3].split(' ').any(|there| there == controller), "{controller} in {}", lines[3]);
    }
    assert!(lines[4].starts_with("oom_kill ") && lines[4] != "oom_kill 0", "{}", lines[4]);
    assert!(lines.iter().any(|line| line.contains("overlay")));
}

#[test]
fn a_crash_is_no_result() {
    let crashed =
        Vm::new().script("echo before; sync; echo c > /proc/sysrq-trigger; sleep 1000").run(TIMEOUT);
    assert!(matches!(crashed, Err(test_vms::Error::Stopped { .. })), "{crashed:?}");
}
