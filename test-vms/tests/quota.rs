//! A task whose writable layer the file system holds to its limit: project quotas, on a stock kernel. (This machine's may have
//! none.)
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use test_vms::binary;
use test_vms::vm::Vm;

const TIMEOUT: Duration = Duration::from_secs(280);

const SCRIPT: &str = r#"
give_up() { echo "--- $1"; cat /tmp/agent.log; covey tasks; covey events; dmesg | tail -5; exit 1; }
mkdir -p /data
mount -t ext4 -o prjquota /dev/vdb /data || give_up "no quotas"
export COVEY_SOCKET=/run/covey/agent.sock
TMPDIR=/data covey dev >/tmp/agent.log 2>&1 &
agent=$!
until covey nodes >/dev/null 2>&1; do kill -0 $agent || give_up "no agent"; sleep 0.1; done
cat > eater.toml <<'END'
name = "eater"
[task]
image   = "hello:1"
command = ["/hello", "--listen", ":${PORT_http}"]
ports   = ["http"]
memory  = "128MiB"
disk    = "32MiB"
logs    = "1MiB"
END
covey run eater.toml --wait --timeout 60s >/dev/null || give_up "does not run"
of() { covey task eater/0 --json | sed -n "s/.*\"$1\": *\"\{0,1\}\([a-z0-9.]*\).*/\1/p" | head -1; }
before="$(of pid) $(of restarts)"
for mib in 20 40 100; do dd if=/dev/urandom of=/$mib bs=1M count=$mib 2>/dev/null; done
writes() { covey cp /$1 eater/0:/$2 2>&1 && echo whole; }
echo "--- within"; writes 20 a
echo "--- beyond"; writes 20 b
covey run eater.toml --set task.disk=64MiB --wait --timeout 60s >/dev/null || give_up "no other limit"
echo "--- with more"; writes 20 b
echo "--- beyond more"; writes 40 c
[ "$before" = "$(of pid) $(of restarts)" ] && echo "--- same"
covey stop eater >/dev/null || give_up "does not stop"
# The next has nothing of it: neither what it wrote nor its limit.
sed -i '/^disk/d' eater.toml
covey run eater.toml --wait --timeout 60s >/dev/null || give_up "does not run again"
echo "--- unlimited"; writes 100 a
kill $agent
wait $agent
exit 0
"#;

#[test]
fn a_writable_layer_is_held_to_its_limit_by_the_file_system() {
    let temp = tempfile::tempdir().unwrap();
    let image = temp.path().join("data");
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-t", "ext4", "-O", "quota,project", "-E", "quotatype=prjquota"]);
    assert!(mke2fs.arg(&image).arg("512M").status().unwrap().success());
    let vm = Vm::new().file(binary::covey().unwrap(), "/usr/bin/covey").disk(&image).module("quota_v2");
    let output = vm.script(SCRIPT).run(TIMEOUT).unwrap();
    println!("{}\n(took {:?})", output.said, output.took);
    assert_eq!(output.status, 0, "{}\n{}", output.said, output.console);
    let seen: BTreeMap<&str, &str> =
        output.said.split("--- ").filter_map(|section| section.split_once('\n')).collect();
    for within in ["within", "with more", "unlimited"] {
        assert!(seen[within].ends_with("whole\n"), "{within}: {}", seen[within]);
    }
    for beyond in ["beyond", "beyond more"] {
        assert!(seen[beyond].to_lowercase().contains("quota exceeded"), "{beyond}: {}", seen[beyond]);
    }
    assert!(seen.contains_key("same"), "it goes on, and is not started again");
}
