//! Bands and a limited container on what most users run: a stock kernel with cgroup v2 alone, and an agent in a service's
//! cgroup, as systemd would have started it. (The other root tests run on whatever this machine has.)
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use test_vms::binary;
use test_vms::vm::Vm;

/// Many times what it takes, for a machine that is busy with other tests.
const TIMEOUT: Duration = Duration::from_secs(280);

/// What the node may use: less than the machine has.
const CAPACITY: u64 = 512 << 20;

/// The scripts print what they see in sections, for the tests to judge. First, an agent.
const BEGIN: &str = r#"
section() { echo "--- $1"; }
give_up() { section "$1"; cat /tmp/agent.log; covey events; dmesg | tail -5; exit 1; }

# What systemd does for a unit with Delegate=yes.
slice=/sys/fs/cgroup/system.slice
mkdir -p $slice/covey.service
for directory in /sys/fs/cgroup $slice; do echo "+cpu +memory +pids +io" > $directory/cgroup.subtree_control; done
echo 512M > $slice/covey.service/memory.max
# A scheduler that shares the disk by weight.
echo bfq > /sys/block/vda/queue/scheduler

export COVEY_SOCKET=/run/covey/agent.sock
(echo 0 > $slice/covey.service/cgroup.procs; exec covey dev >/tmp/agent.log 2>&1) &
agent=$!
# A kill -0 that fails means that there is nobody to wait for.
until covey nodes >/dev/null 2>&1; do kill -0 $agent || give_up "no agent"; sleep 0.1; done
find /sys/fs/cgroup -type d | sort > /tmp/before
"#;

const BANDS: &str = include_str!("v2/bands.sh");

const LIMITED: &str = r#"
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
fn bands_and_a_limited_container_on_pure_cgroup_v2() {
    let script = [BEGIN, BANDS, LIMITED].concat();
    let vm = Vm::new().file(binary::covey().unwrap(), "/usr/bin/covey").module("bfq").script(&script);
    let output = vm.run(TIMEOUT).unwrap();
    println!("{}\n(took {:?})", output.said, output.took);
    assert_eq!(output.status, 0, "{}\n{}", output.said, output.console);
    let seen = sections(&output.said);

    bands(&seen);
    limited(&seen);
    assert_eq!(seen["agent ended"], "0");
}

/// REQUIREMENTS BX19: free before batch, and never production; by files and by deeds.
fn bands(seen: &BTreeMap<String, String>) {
    let files: BTreeMap<&str, &str> =
        seen["files"].lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect();
    let bands = ["monitoring", "production", "spare", "spare/batch", "spare/free"];
    let of = |file: &str| bands.map(|band| files[format!("{band}/{file}").as_str()]);
    assert_eq!(of("cpu.idle"), ["0", "0", "1", "0", "0"]);
    assert_eq!(of("cpu.weight"), ["40", "20", "0", "100", "2"], "what is idle has no weight");
    let io = ["default 800", "default 400", "default 40", "default 100", "default 10"];
    assert_eq!((of("io.weight"), of("io.bfq.weight")), (io, io));
    assert_eq!([files["web/io.bfq.weight"], files["sum/io.bfq.weight"]], ["default 100", "default 10"]);
    let high = of("memory.high");
    assert_eq!([high[0], high[1], high[3]], ["max"; 3]);
    let [both, free] = [high[2], high[4]].map(|bytes| bytes.parse::<u64>().unwrap());
    assert!(free < both && both < CAPACITY, "{free} {both}");
    assert_eq!(files["web/memory.low"], (200_u64 << 20).to_string());
    assert!(files["web/io.max"].ends_with("rbps=20971520 wbps=20971520 riops=500 wiops=500"), "{files:?}");

    // The tree's, the shims', the band's, and its tasks': together they leave a fifth of the node.
    let floors: Vec<u64> = seen["floors"].lines().map(|bytes| bytes.parse().unwrap()).collect();
    let [tree, shims, production, ref tasks @ ..] = floors[..] else { panic!("{floors:?}") };
    assert_eq!((tasks.len(), tasks.iter().sum::<u64>()), (2, production));
    assert_eq!(tree, 2 * shims + production);
    assert!(tree <= CAPACITY / 5 * 4 && tree + (2 << 20) > CAPACITY / 5 * 4 && tasks.iter().all(|t| *t > 0));
    assert_eq!(seen["alarm"], "1", "the kernel tells the guard who waits");

    assert_eq!(seen["before"], seen["after"], "production has not noticed");
    // On a slow machine who is to go may seem not to, and then somebody else goes too: the order stays.
    let mut reclaimed: Vec<&str> = seen["reclaimed"].lines().collect();
    assert_eq!(reclaimed[0], "hog/0");
    reclaimed.sort_unstable();
    reclaimed.dedup();
    assert_eq!(reclaimed, ["etl/0", "hog/0"]);
    assert_eq!(seen["killed"], "oom_kill 0", "the kernel never chose");
}

fn limited(seen: &BTreeMap<String, String>) {
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
}

fn sections(said: &str) -> BTreeMap<String, String> {
    said.split("--- ")
        .filter_map(|section| section.split_once('\n'))
        .map(|(name, text)| (name.to_owned(), text.trim().to_owned()))
        .collect()
}
