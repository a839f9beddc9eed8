#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::cgroup::Band;

pub(crate) fn config() -> BundleConfig {
    let trees = [("cpu", "/sys/fs/cgroup/cpu/covey-1"), ("unified", "/sys/fs/cgroup/unified/covey-1")];
    BundleConfig {
        version: VERSION,
        run: "web-0.1".into(),
        layers: vec!["/data/content/layers/b".into(), "/data/content/layers/a".into()],
        idmap: Some(IdMap { host: 300_000, size: 65_536 }),
        user: Some("web:log".into()),
        cgroup: Placement {
            trees: trees.iter().map(|(k, v)| (k.to_string(), v.into())).collect::<BTreeMap<_, _>>(),
            band: Band::Production,
            run: "web-0.1".into(),
        },
        limits: Limits {
            cpu_milli: Some(250),
            memory_bytes: Some(64 << 20),
            pids: Some(4096),
            ..Limits::default()
        },
        log_cap_bytes: 64 << 20,
        network: None,
        binds: Vec::new(),
        project: None,
    }
}

fn with_binds() -> BundleConfig {
    let bind = |source: &str, target: &str, kind| Bind { source: source.into(), target: target.into(), kind };
    let binds = vec![
        bind("/data/volumes/ann/db/0/data", "/data", BindKind::Volume),
        bind("/etc/ssl", "/ssl", BindKind::Host),
        bind("/dev/kvm", "/dev/kvm", BindKind::Device),
    ];
    BundleConfig { binds, project: Some(1 << 30), ..config() }
}

pub(crate) fn state() -> State {
    State {
        version: VERSION,
        shim: Process { pid: 41, start_time: 1000 },
        init: Process { pid: 42, start_time: 1001 },
        started_at_ms: 1_700_000_000_000,
    }
}

pub(crate) fn exit() -> ExitRecord {
    ExitRecord {
        version: VERSION,
        code: None,
        signal: Some(9),
        oom: true,
        finished_at_ms: 1_700_000_000_500,
        error: None,
        log_bytes_lost: 3,
    }
}

fn failure() -> Failure {
    Failure {
        what: "run /nope".into(),
        why: "no such file /nope in the image".into(),
        hint: "check the job's command".into(),
    }
}

/// Agents and shims of several versions meet over these documents. A field may be added (then the golden file is changed
/// with it, and old documents must still be read: it needs a default); nothing may be renamed, retyped or removed.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let expected = fs::read_to_string(&path).unwrap();
    let written = serde_json::to_string_pretty(value).unwrap() + "\n";
    assert_eq!(written, expected, "{}", path.display());
    assert_eq!(&serde_json::from_str::<T>(&expected).unwrap(), value);
}

#[test]
fn the_documents_are_as_they_were() {
    golden("bundle.json", &config());
    golden("bundle_binds.json", &with_binds());
    golden("state.json", &state());
    golden("exit.json", &exit());
    golden("started.json", &Announcement::Started(state()));
    golden("failed.json", &Announcement::Failed(failure()));
}

#[test]
fn unknown_fields_are_ignored_and_newer_versions_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = Bundle::at(dir.path());
    assert_eq!(bundle.state().unwrap(), None);
    let later = r#"{"version":1,"shim":{"pid":41,"start_time":1000,"x":1},"init":{"pid":42,"start_time":1001},
        "started_at_ms":1700000000000,"more":{}}"#;
    fs::write(dir.path().join("state.json"), later).unwrap();
    assert_eq!(bundle.state().unwrap(), Some(state()));
    fs::write(dir.path().join("state.json"), r#"{"version":2,"other":true}"#).unwrap();
    let error = bundle.state().unwrap_err().to_string();
    let path = dir.path().join("state.json");
    let expected =
        format!("{} has version 2, this covey knows up to 1: use the covey that wrote it", path.display());
    assert!(error.starts_with(&expected), "{error}");
    fs::write(dir.path().join("state.json"), "{").unwrap();
    assert!(bundle.state().unwrap_err().to_string().contains("is unreadable"));
}

#[test]
fn documents_are_written_whole_and_the_exit_record_into_its_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    let spec = Spec::default();
    let bundle = Bundle::create(&at, &config(), &spec).unwrap();
    assert_eq!(bundle.config().unwrap(), config());
    assert_eq!(bundle.spec().unwrap(), spec);
    bundle.reserve_exit_record().unwrap();
    assert_eq!(fs::metadata(at.join("exit.json.tmp")).unwrap().len(), 4096);
    assert_eq!(bundle.exit_record().unwrap(), None);
    bundle.write_exit_record(&exit()).unwrap();
    assert_eq!(bundle.exit_record().unwrap(), Some(exit()));
    assert!(!at.join("exit.json.tmp").exists());
    let again = Bundle::create(&at, &config(), &spec).unwrap_err().to_string();
    assert!(again.starts_with(&format!("cannot create {}: File exists", at.display())), "{again}");
}

#[test]
fn segments_are_named_by_stream_and_offset() {
    assert_eq!(Stream::Stdout.segment(1_048_576), "stdout.00000000000001048576");
    assert_eq!(Stream::Stderr.segment_offset("stderr.00000000000000000007"), Some(7));
    for other in
        ["stdout.00000000000000000007", "stderr.7", "stderr.0000000000000000000x", "stderr", "stderr."]
    {
        assert_eq!(Stream::Stderr.segment_offset(other), None, "{other}");
    }
    assert_eq!(Stream::Stdout.segment_offset("stdout.99999999999999999999"), None);
}

#[test]
fn a_process_is_told_from_a_later_one() {
    let me = Process::now(std::process::id() as i32).unwrap();
    assert!(me.is_there());
    assert!(!Process { start_time: me.start_time + 1, ..me }.is_there());
    assert!(!Process { pid: i32::MAX, ..me }.is_there());
}

/// Nobody syncs these files: a file system may keep a name and lose what was in it.
#[test]
fn what_a_loss_of_power_has_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("run");
    let bundle = Bundle::create(&at, &config(), &Spec::default()).unwrap();
    fs::write(at.join("bundle.json"), "").unwrap();
    fs::write(at.join("state.json"), "").unwrap();
    crate::container::remove(&bundle).unwrap();
    assert!(!at.exists());
}
