//! A limited container on what most users run: a stock kernel with cgroup v2 alone, and an agent in a service's cgroup,
//! as systemd would have started it. (The other root tests run on whatever this machine has.)
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use test_vms::binary;
use test_vms::vm::Vm;

/// Many times what it takes, for a machine that is busy with other tests.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Prints what it sees in sections, for the test to judge.
const SCRIPT: &str = r#"
section() { echo "--- $1"; }
give_up() { section "$1"; cat /tmp/agent.log; covey events; dmesg | tail -5; exit 1; }

# What systemd does for a unit with Delegate=yes.
slice=/sys/fs/cgroup/system.slice
mkdir -p $slice/covey.service
for directory in /sys/fs/cgroup $slice; do echo "+cpu +memory +pids" > $directory/cgroup.subtree_control; done

export COVEY_SOCKET=/run/covey/agent.sock
(echo 0 > $slice/covey.service/cgroup.procs; exec covey dev >/tmp/agent.log 2>&1) &
agent=$!
# A kill -0 that fails means that there is nobody to wait for.
until covey nodes >/dev/null 2>&1; do kill -0 $agent || give_up "no agent"; sleep 0.1; done
find /sys/fs/cgroup -type d | sort > /tmp/before

cat > limited.toml <<'END'
name = "limited"
[task]
image   = "hello:1"
command = ["/hello", "--listen", ":${PORT_http}"]
cpu     = "250m"
memory  = "64MiB"
ports   = ["http"]
health  = { http = "/healthz", port = "http" }
END
covey run limited.toml --wait --timeout 30s || give_up "does not run"
covey task limited/0 --json > /tmp/task
section task; cat /tmp/task; echo
pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' /tmp/task | head -1)
port=$(sed -n 's/.*"http": *\([0-9]*\).*/\1/p' /tmp/task | head -1)
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)
section cgroup; echo $cgroup
for file in memory.max cpu.max pids.max; do section $file; cat $cgroup/$file; done
# As the container has it: its own cgroup, and no other.
section inside; cat /proc/$pid/root/sys/fs/cgroup/memory.max /proc/$pid/root/sys/fs/cgroup/cpu.max
section uid; awk '/^Uid:/ { print $2 }' /proc/$pid/status
section answer; wget -qO- http://127.0.0.1:$port/healthz

# More than it may have.
wget -qO- "http://127.0.0.1:$port/alloc?mib=256" 2>/dev/null
tries=0
until covey task limited/0 --json | grep -q '"cause": *"oom.limit"'; do
  tries=$((tries + 1)); [ $tries -lt 300 ] || give_up "no cause"
  sleep 0.1
done
section oom; covey task limited/0 --json; echo

# Less than its band has left.
sed -i 's/64MiB/256MiB/' limited.toml
covey run limited.toml --wait --timeout 30s >/dev/null 2>&1 || give_up "does not run again"
covey task limited/0 --json > /tmp/task
pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' /tmp/task | head -1)
port=$(sed -n 's/.*"http": *\([0-9]*\).*/\1/p' /tmp/task | head -1)
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$pid/cgroup)
section group; cat $cgroup/memory.oom.group
echo 64M > $cgroup/../memory.max
wget -qO- "http://127.0.0.1:$port/alloc?mib=128" 2>/dev/null
tries=0
until covey task limited/0 --json | grep -q '"cause": *"oom.host"'; do
  tries=$((tries + 1)); [ $tries -lt 300 ] || { covey task limited/0 --json; give_up "no cause"; }
  sleep 0.1
done
section host; covey task limited/0 --json; echo

covey stop limited >/dev/null || give_up "does not stop"
tries=0
until find /sys/fs/cgroup -type d | sort | cmp -s - /tmp/before; do
  tries=$((tries + 1)); [ $tries -lt 300 ] || { find /sys/fs/cgroup -type d | sort | diff /tmp/before -; give_up "left over"; }
  sleep 0.1
done
section processes; ps | grep -c '[/]hello'
section mounts; grep -c overlay /proc/mounts
kill $agent
wait $agent
section "agent ended"; echo $?
exit 0
"#;

#[test]
fn a_limited_container_on_pure_cgroup_v2() {
    let output =
        Vm::new().file(binary::covey().unwrap(), "/usr/bin/covey").script(SCRIPT).run(TIMEOUT).unwrap();
    println!("{}\n(took {:?})", output.said, output.took);
    assert_eq!(output.status, 0, "{}\n{}", output.said, output.console);
    let seen = sections(&output.said);

    let task: Value = serde_json::from_str(&seen["task"]).unwrap();
    assert_eq!(task["state"], "running");
    assert_eq!(task["healthy"], true);
    assert!(seen["cgroup"].starts_with("/sys/fs/cgroup/system.slice/covey.service/"), "{}", seen["cgroup"]);
    assert_eq!(seen["memory.max"], (64 << 20).to_string());
    assert_eq!(seen["cpu.max"], "25000 100000");
    assert!(seen["pids.max"].parse::<u64>().is_ok(), "a number of processes, not {}", seen["pids.max"]);
    assert_eq!(seen["inside"], format!("{}\n25000 100000", 64 << 20));
    assert_ne!(seen["uid"], "0", "root in the container is nobody outside");
    assert_eq!(seen["answer"], "ok");

    let killed: Value = serde_json::from_str(&seen["oom"]).unwrap();
    assert_eq!(killed["exit"]["cause"], "oom.limit");
    assert_eq!(killed["exit"]["signal"], 9);
    assert_eq!(seen["group"], "1");
    let killed: Value = serde_json::from_str(&seen["host"]).unwrap();
    assert_eq!(killed["exit"]["cause"], "oom.host");
    assert_eq!((seen["processes"].as_str(), seen["mounts"].as_str()), ("0", "0"));
    assert_eq!(seen["agent ended"], "0");
}

fn sections(said: &str) -> BTreeMap<String, String> {
    said.split("--- ")
        .filter_map(|section| section.split_once('\n'))
        .map(|(name, text)| (name.to_owned(), text.trim().to_owned()))
        .collect()
}
