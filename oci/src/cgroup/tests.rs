#![allow(clippy::unwrap_used)]

use super::host::{Hierarchy, hierarchies};
use super::*;

fn found(mountinfo: &str, proc_cgroup: &str) -> Vec<(String, String, String)> {
    let show = |path: &Path| path.display().to_string();
    let found = hierarchies(mountinfo, proc_cgroup).into_iter();
    found.map(|(key, Hierarchy { mount, own })| (key, show(&mount), show(&own))).collect()
}

fn row(key: &str, mount: &str, own: &str) -> (String, String, String) {
    (key.into(), mount.into(), own.into())
}

#[test]
fn a_pure_v2_host() {
    let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
                  23 29 0:22 / /sys rw - sysfs sysfs rw\n";
    let own = "0::/system.slice/covey.service\n";
    let expected = row("unified", "/sys/fs/cgroup", "/sys/fs/cgroup/system.slice/covey.service");
    assert_eq!(found(mounts, own), [expected]);
    assert_eq!(found(mounts, "0::/\n"), [row("unified", "/sys/fs/cgroup", "/sys/fs/cgroup")]);
}

#[test]
fn a_hybrid_host_whose_hierarchies_differ() {
    let mounts = "33 32 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                  34 32 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  35 32 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  36 32 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
                  37 32 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
    let own = "5:name=systemd:/\n4:memory:/node/a\n3:cpu,cpuacct:/\n2:freezer:/\n0::/x:y\n";
    let expected = [
        row("cpu", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
        row("cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct"),
        row("memory", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/node/a"),
        row("unified", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/x:y"),
    ];
    assert_eq!(found(mounts, own), expected);
}

#[test]
fn inside_a_container_only_a_part_is_mounted() {
    let mounts = "35 32 0:31 /docker/1 /sys/fs/cgroup/memory\\040here ro - cgroup cgroup rw,memory\n\
                  36 32 0:32 /docker/2 /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n";
    let own = "4:memory:/docker/1/sub\n3:pids:/docker/1\n";
    // pids: we are outside of what is mounted.
    let expected = [row("memory", "/sys/fs/cgroup/memory here", "/sys/fs/cgroup/memory here/sub")];
    assert_eq!(found(mounts, own), expected);
    assert_eq!(found("garbage - \n - x\n", "x\n::\n"), []);
}

#[test]
fn controllers_mounted_together_share_a_directory() {
    let both = PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/covey-1");
    let trees = [("cpu", both.clone()), ("cpuacct", both.clone())].map(|(k, v)| (k.to_string(), v));
    let placement = Placement { trees: trees.into(), band: Band::Free, run: "r".into() };
    assert_eq!(placement.dirs().into_iter().collect::<Vec<_>>(), [both.join("free/r")]);
}

#[test]
fn files_of_keys_and_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memory.events");
    fs::write(&path, "low 0\noom 3\noom_kill 2\noom_group_kill 0\n").unwrap();
    assert_eq!(keyed(&path, "oom_kill"), Some(2));
    assert_eq!(keyed(&path, "oom"), Some(3));
    assert_eq!(keyed(&path, "high"), None);
    fs::write(&path, "max\n").unwrap();
    assert_eq!(number(&path), None);
    fs::write(&path, "4096\n").unwrap();
    assert_eq!(number(&path), Some(4096));
}

/// The v2 dialect, on a directory that looks like a v2 cgroup: which file gets what.
#[test]
fn limits_in_the_words_of_v2() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("production/web");
    fs::create_dir_all(&run).unwrap();
    fs::write(run.join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
    let files = ["cpu.max", "cpu.weight", "memory.max", "memory.swap.max", "pids.max"];
    let clear = || files.iter().for_each(|file| fs::write(run.join(file), "").unwrap());
    let written = || files.map(|file| fs::read_to_string(run.join(file)).unwrap());
    let trees = [(UNIFIED.to_string(), dir.path().to_path_buf())].into();
    let placement = Placement { trees, band: Band::Production, run: "web".into() };

    clear();
    let limits =
        Limits { cpu_milli: Some(250), memory_bytes: Some(64 << 20), pids: Some(99), ..Limits::default() };
    placement.apply(&limits).unwrap();
    assert_eq!(written(), ["25000 100000", "25", "67108864", "0", "99"]);
    clear();
    placement.apply(&Limits { cpu_milli: Some(1), ..Limits::default() }).unwrap();
    assert_eq!(written(), ["1000 100000", "1", "max", "max", "max"]);

    // A limit below what is in use would kill; it is refused as on v1.
    clear();
    fs::write(run.join("memory.current"), "70000000\n").unwrap();
    let refused = placement.apply(&limits).unwrap_err().to_string();
    assert!(refused.starts_with("a memory limit of 67108864 bytes is less than"), "{refused}");
    assert_eq!(written()[2], "");
    fs::remove_file(run.join("memory.current")).unwrap();

    // Without a controller its limit is passed over, as was warned of.
    fs::write(run.join("cgroup.controllers"), "memory\n").unwrap();
    clear();
    placement.apply(&limits).unwrap();
    assert_eq!(written(), ["", "", "67108864", "0", ""]);

    fs::write(run.join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
    fs::write(run.join("memory.current"), "5000\n").unwrap();
    fs::write(run.join("memory.max"), "8000\n").unwrap();
    fs::write(run.join("memory.stat"), "anon 1\ninactive_file 2000\n").unwrap();
    fs::write(run.join("cpu.stat"), "usage_usec 77\nthrottled_usec 5\n").unwrap();
    fs::write(run.join("pids.current"), "3\n").unwrap();
    let expected = crate::stats::Stats {
        cpu_usage_us: 77,
        throttled_us: 5,
        memory_working_set: 3000,
        memory_peak: 5000,
        memory_limit: Some(8000),
        pids: 3,
        oom_kills: 1,
    };
    assert_eq!(placement.stats(), expected);

    // Beside what is looked at all the time; what is not there is not made up.
    assert_eq!((placement.cpu_us(), placement.memory(), placement.is_there()), (Some(77), Some(3000), true));
    fs::write(
        run.join("io.stat"),
        "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0\n",
    )
    .unwrap();
    let pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 total=7\n";
    fs::write(run.join("cpu.pressure"), pressure).unwrap();
    fs::write(run.join("memory.pressure"), "").unwrap();
    let expected = crate::stats::Counters {
        throttled_us: Some(5),
        memory_peak: None,
        io_bytes: Some(35),
        waited_us: [Some(42), None, None],
    };
    assert_eq!(placement.counters(), expected);
    // Files that are empty, or of another form: no figure, rather than none used.
    for text in ["", "many\n", "-5\n", "99999999999999999999999\n"] {
        fs::write(run.join("memory.current"), text).unwrap();
        fs::write(run.join("cpu.stat"), format!("usage_usec {text}")).unwrap();
        assert_eq!((placement.cpu_us(), placement.memory()), (None, None), "{text:?}");
        assert_eq!(placement.counters().throttled_us, None);
    }
    fs::write(run.join("memory.current"), "5000\n").unwrap();
    for text in ["", "inactive_file much\n", "inactive_file 900000\n"] {
        fs::write(run.join("memory.stat"), text).unwrap();
        assert_eq!(placement.memory(), Some(5000), "all of it counts: {text:?}");
    }
}
