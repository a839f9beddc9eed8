//! What a host has of its own, and how much of it.

use crate::bench::Bare;

#[test]
fn a_host_has_its_own_name_address_run_and_disk() {
    let lab = Bare::up("own", 2);
    let here = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for (host, addr) in [("h1", "10.77.0.1"), ("h2", "10.77.0.2")] {
        assert_eq!(lab.says(host, "hostname"), host);
        assert!(lab.says(host, "ip -4 addr show dev eth0").contains(&format!("inet {addr}/16")));
        assert_eq!(lab.says(host, "ls /run | grep -v '^mount$' || true"), "");
        let data = lab.dir(host).join("data");
        let mounted = lab.says(host, &format!("findmnt -n -o FSTYPE {}", data.display()));
        assert_eq!(mounted, "ext4");
        lab.says(host, &format!("touch /run/here {}/{host}", data.display()));
        assert!(!data.join(host).exists(), "a host's disk is not seen on the machine");
    }
    assert_eq!(lab.says("h1", "getent hosts h2 | cut -d ' ' -f 1"), "10.77.0.2");
    assert_eq!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), here);
    assert!(!std::path::Path::new("/run/here").exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(lab.name()), "nothing of a lab is mounted on the machine");
}

#[test]
fn exec_passes_on_how_the_command_ended() {
    let lab = Bare::up("exec", 1);
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_covey-lab"));
        command.args(["--name", lab.name(), "exec"]).args(args).output().unwrap()
    };
    let output = run(&["h1", "--", "sh", "-c", "hostname; exit 7"]);
    assert_eq!((output.status.code(), output.stdout), (Some(7), b"h1\n".to_vec()));
    let unknown = run(&["h2", "--", "true"]);
    assert_eq!(unknown.status.code(), Some(125));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("has no host `h2`; it has h1"), "{said}");
    assert_eq!(run(&["h1", "--", "no-such-command"]).status.code(), Some(125));
}

#[test]
fn a_host_runs_short_of_memory_without_its_machine() {
    let mut plan = Bare::plan("memory", 2);
    plan.limits.memory_bytes = 64 << 20;
    let lab = Bare::of(&plan);
    // tail keeps a line until it ends, and this one does not.
    let hog = lab.sh("h1", "head -c 256M /dev/zero | tail");
    assert!(!hog.status.success(), "{hog:?}");
    lab.says("h1", "head -c 16M /dev/zero | tail > /dev/null");
    lab.says("h2", "head -c 16M /dev/zero | tail > /dev/null");
}

#[test]
fn a_host_gets_no_more_cpu_than_it_has() {
    let mut plan = Bare::plan("cpu", 1);
    plan.limits.cpu_milli = 200;
    let lab = Bare::of(&plan);
    // Counted by the kernel, so that a busy machine cannot make it look slower, or faster.
    let throttled = || -> u64 {
        let script = r"
            for root in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup; do
              file=$root/covey-lab/$0/h1/cpu.stat
              if [ -e $file ] && grep -q nr_throttled $file; then sed -n 's/^nr_throttled //p' $file; exit; fi
            done; exit 1";
        let output = lab.exec("h1", "/bin/sh").unwrap().args(["-c", script, lab.name()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    let before = throttled();
    lab.says("h1", "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done");
    assert!(throttled() > before, "a loop is throttled");
}

#[test]
fn a_host_has_a_disk_of_its_own_that_can_be_full() {
    let mut plan = Bare::plan("disk", 2);
    plan.limits.disk_bytes = 32 << 20;
    let lab = Bare::of(&plan);
    let fill = |host: &str, mib: u32| {
        let data = lab.dir(host).join("data");
        lab.sh(host, &format!("head -c {mib}M /dev/zero > {}/file", data.display()))
    };
    let full = fill("h1", 64);
    assert!(String::from_utf8(full.stderr).unwrap().contains("No space left"));
    assert!(fill("h2", 16).status.success());
}

#[test]
fn two_labs_do_not_know_of_each_other() {
    let (one, two) = (Bare::up("one", 2), Bare::up("two", 2));
    assert_eq!(one.says("h1", "hostname -I"), two.says("h1", "hostname -I"));
    one.reaches("h1", "h2");
    one.crash("h2").unwrap();
    one.cut(&["h1"], &["h2"], false).unwrap();
    two.reaches("h1", "h2");
}
