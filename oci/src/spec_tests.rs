#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn input() -> SpecInput {
    SpecInput {
        args: vec!["/hello".into(), "--listen".into(), ":8080".into()],
        env: vec!["A=1".into(), "B=2".into(), "A=3".into()],
        cwd: "/".into(),
        hostname: "web-0".into(),
        idmap: Some(IdMap { host: 300_000, size: 65_536 }),
        read_only: false,
        oom_score_adj: 100,
        network: None,
        etc: vec![("/etc/hosts".into(), "/etc/hosts".into())],
        capabilities: Vec::new(),
        tmpfs: Vec::new(),
        binds: Vec::new(),
    }
}

fn host() -> Host {
    Host { sys_resource: true, cgroup2: true, nofile: 1_048_576 }
}

/// The seccomp profile has tests of its own, and would fill pages here.
fn shown(mut spec: Spec) -> String {
    spec.linux_mut().as_mut().unwrap().set_seccomp(None);
    // Sets are written in no order.
    let mut json = serde_json::to_value(&spec).unwrap();
    let capabilities = json["process"]["capabilities"].as_object_mut().unwrap();
    for set in capabilities.values_mut() {
        set.as_array_mut().unwrap().sort_by_key(|c| c.to_string());
    }
    serde_json::to_string_pretty(&json).unwrap() + "\n"
}

#[test]
fn the_spec_is_as_it_was() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config.json");
    let spec = build(&input(), &host()).unwrap();
    assert!(spec.linux().as_ref().unwrap().seccomp().is_some());
    assert_eq!(shown(spec), std::fs::read_to_string(path).unwrap());
}

#[test]
fn what_depends_on_the_host() {
    let spec = build(&input(), &Host { sys_resource: false, cgroup2: false, nofile: 4096 }).unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.rlimits().as_ref().unwrap()[0].hard(), 4096);
    assert_eq!(process.oom_score_adj(), Some(100));
    let mounts = spec.mounts().as_ref().unwrap();
    assert!(!mounts.iter().any(|m| m.typ().as_deref() == Some("cgroup2")));
    let low = SpecInput { oom_score_adj: -500, ..input() };
    let lowered = |sys_resource| {
        let spec = build(&low, &Host { sys_resource, ..host() }).unwrap();
        spec.process().as_ref().unwrap().oom_score_adj()
    };
    assert_eq!((lowered(true), lowered(false)), (Some(-500), None));
}

#[test]
fn without_a_map_there_is_no_user_namespace() {
    let spec = build(&SpecInput { idmap: None, ..input() }, &host()).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert!(!linux.namespaces().as_ref().unwrap().iter().any(|n| n.typ() == LinuxNamespaceType::User));
    assert!(linux.uid_mappings().as_ref().is_none_or(Vec::is_empty));
    assert!(linux.resources().is_none() && linux.cgroups_path().is_none());
}

#[test]
fn a_later_variable_wins_and_path_is_never_missing() {
    let spec = build(&input(), &host()).unwrap();
    assert_eq!(spec.process().as_ref().unwrap().env().as_ref().unwrap(), &[PATH, "A=3", "B=2"]);
    let own = SpecInput { env: vec!["PATH=/opt".into()], ..input() };
    let spec = build(&own, &host()).unwrap();
    assert_eq!(spec.process().as_ref().unwrap().env().as_ref().unwrap(), &["PATH=/opt"]);
}
