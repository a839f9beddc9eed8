#![allow(clippy::unwrap_used)]

use clap::Parser;

use super::*;
use crate::args::{Cli, Verb};

fn parsed(args: &[&str]) -> Result<Config, String> {
    let line = ["covey", "agent"].iter().chain(args);
    let cli = Cli::try_parse_from(line).map_err(|why| why.to_string())?;
    let Verb::Agent(agent) = cli.verb else { return Err("another verb".into()) };
    config(agent, cli.global.socket, PathBuf::from("/bin/covey"), None).map_err(|why| why.to_string())
}

#[test]
fn flags_become_the_configuration() {
    let config = parsed(&[
        "--data",
        "/d",
        "--name",
        "n1",
        "--cell",
        "lab",
        "--label",
        "rack=r1",
        "--label",
        "disk=ssd",
        "--capacity",
        "cpu=1500m,memory=2GiB,gpu=3",
        "--socket",
        "/s",
    ])
    .unwrap();
    assert_eq!((config.data.to_str(), config.socket.to_str()), (Some("/d"), Some("/s")));
    assert_eq!((config.name.as_deref(), config.cell.as_deref()), (Some("n1"), Some("lab")));
    let capacity = [(CPU, 1500), (MEMORY, 2 << 30), ("gpu", 3)].into_iter().collect();
    assert_eq!(config.capacity, capacity);
    assert_eq!(
        config.labels.into_iter().map(|(k, v)| k + "=" + &v).collect::<Vec<_>>(),
        ["disk=ssd", "rack=r1"]
    );
    assert!(!config.dev);
    assert_eq!(parsed(&["--data", "/d"]).unwrap().socket.to_str(), Some(SOCKET));
}

#[test]
fn the_command_line_counts_more_than_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    let file = path.to_str().unwrap();
    let text = "data = \"/d\"\nsocket = \"/s\"\nname = \"n1\"\n[label]\nrack = \"r1\"\nzone = \"z1\"\n[capacity]\ncpu = 1.5\n\
                memory = \"1GiB\"\n";
    fs::write(&path, text).unwrap();
    let config =
        parsed(&["--config", file, "--name", "n2", "--label", "rack=r2", "--capacity", "cpu=1"]).unwrap();
    assert_eq!((config.data.to_str(), config.socket.to_str()), (Some("/d"), Some("/s")));
    assert_eq!(config.name.as_deref(), Some("n2"));
    assert_eq!(
        config.labels.into_iter().map(|(k, v)| k + "=" + &v).collect::<Vec<_>>(),
        ["rack=r2", "zone=z1"]
    );
    assert_eq!(config.capacity, Resources::new(1000, 1 << 30));
}

/// Where images come from, and when they go.
#[test]
fn registries_and_collection_are_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    let written = |text: &str| {
        fs::write(&path, format!("data = \"/d\"\n{text}")).unwrap();
        parsed(&["--config", path.to_str().unwrap()])
    };
    let config = written("").unwrap();
    assert_eq!(config.registries.default.as_deref(), Some("docker.io"));
    assert_eq!(config.registries.auth_file, Some(PathBuf::from(AUTH_FILE)));
    assert_eq!(config.collect, Rules::default());
    let config = written(
        "[registry]\ndefault = \"\"\ninsecure = [\"r:5000\"]\nca = [\"/ca.pem\"]\nmirror = { \"docker.io\" = [\"m\"] }\n\
         [collect]\nunused = \"36h\"\nabove = 90\nbelow = 80\n",
    )
    .unwrap();
    let Settings { default, plain, ca, mirrors, .. } = config.registries;
    assert_eq!((default, plain, ca), (None, vec!["r:5000".to_string()], vec![PathBuf::from("/ca.pem")]));
    assert_eq!(mirrors["docker.io"], ["m"]);
    let unused = Duration::from_secs(36 * 3600);
    assert_eq!(config.collect, Rules { unused, above: 90, below: 80 });
    let why = written("[collect]\nabove = 50\n").unwrap_err();
    assert!(why.contains("collect.above = 50 and collect.below = 75"), "{why}");
    assert!(written("[collect]\nunused = \"long\"\n").unwrap_err().contains("collect.unused: a duration"));
}

#[test]
fn how_needs_are_estimated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    let written = |text: &str, flags: &[&str]| {
        fs::write(&path, format!("data = \"/d\"\n{text}")).unwrap();
        let file = ["--config", path.to_str().unwrap()];
        parsed(&file.iter().chain(flags).copied().collect::<Vec<_>>()).map(|config| config.estimate)
    };
    let day = 86_400_000;
    let usual = Estimates::of(Preset::Normal, day);
    assert_eq!(written("", &[]).unwrap(), Some(usual));
    assert_eq!(usual_estimate(), Some(usual));
    assert_eq!(written("", &["--estimate", "off"]).unwrap(), None);
    let file = "[estimate]\npreset = \"conservative\"\nhold = \"60s\"\nhorizon = \"12h\"";
    assert_eq!(usual.holding(60_000).doubt_ms, usual.doubt_ms.map(|ms| ms / 5.0));
    let careful = Estimates::of(Preset::Conservative, day / 2).holding(60_000);
    assert_eq!(written(file, &[]).unwrap(), Some(careful));
    let bold = Estimates::of(Preset::Aggressive, day / 2).holding(60_000);
    assert_eq!(written(file, &["--estimate", "aggressive"]).unwrap(), Some(bold));
    for (text, why) in [
        (
            "[estimate]\npreset = \"bold\"",
            "estimate.preset: must be conservative, normal, aggressive or off, not `bold`",
        ),
        ("[estimate]\nhold = \"1ms\"", "estimate.hold = \"1ms\" must be from 10s to 86400s"),
        ("[estimate]\nhorizon = \"soon\"", "estimate.horizon: a duration is written as"),
        ("[estimate]\nrisk = 1", "unknown field `risk`"),
    ] {
        let said = written(text, &[]).unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
    assert!(written("", &["--estimate", "bold"]).unwrap_err().contains("not `bold`"));
}

fn token() -> String {
    format!("covey1.{}.{}", "ab".repeat(32), "07".repeat(16))
}

#[test]
fn how_to_join_is_said_by_flags_or_the_file() {
    let alone = parsed(&["--data", "/d"]).unwrap();
    assert_eq!((alone.listen, alone.advertise, alone.join.len()), (LISTEN, None, 0));
    let config = parsed(&[
        "--data",
        "/d",
        "--listen",
        "10.0.0.2:7",
        "--advertise",
        "192.0.2.1:8",
        "--join",
        "n1:7411,[::1]:9",
        "--token",
        &token(),
    ])
    .unwrap();
    assert_eq!(config.listen, "10.0.0.2:7".parse().unwrap());
    assert_eq!(config.advertise, Some("192.0.2.1:8".parse().unwrap()));
    assert_eq!((config.join, config.token), (vec!["n1:7411".into(), "[::1]:9".into()], Some(token())));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    let file = path.to_str().unwrap();
    let text = format!(
        "data = \"/d\"\nlisten = \"[::]:7411\"\njoin = \"n1:7411, n2:7411\"\ntoken = \"{}\"\n",
        token()
    );
    fs::write(&path, &text).unwrap();
    let config = parsed(&["--config", file]).unwrap();
    assert_eq!((config.listen, config.token), ("[::]:7411".parse().unwrap(), Some(token())));
    assert_eq!(config.join, ["n1:7411", "n2:7411"]);
    assert_eq!(parsed(&["--config", file, "--join", "n3:7411"]).unwrap().join, ["n3:7411"]);
}

/// A unit file goes on saying how to join when the token is long used up and its file gone.
#[test]
fn in_a_directory_with_a_cell_no_token_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("identity.json"), "{}").unwrap();
    let data = dir.path().to_str().unwrap();
    let config = parsed(&["--data", data, "--join", "n1:7411", "--token", "@/nonexistent"]).unwrap();
    assert!(config.has_cell() && config.token.is_none());
    assert!(parsed(&["--data", data, "--token", "nonsense"]).is_ok());
}

#[test]
fn what_is_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("covey.toml");
    let file = path.to_str().unwrap();
    let said = |args: &[&str], wanted: &str| {
        let why = parsed(args).unwrap_err();
        assert!(why.contains(wanted), "{args:?}: {why}");
    };
    said(&[], "--data <DIR>");
    said(&["--data", "/d", "--label", "rack"], "KEY=VALUE");
    said(&["--data", "/d", "--label", "a b=c"], "`a b` cannot be in a label");
    said(&["--data", "/d", "--capacity", "cpu"], "cpu=2,memory=4GiB");
    said(&["--data", "/d", "--capacity", "cpu=many"], "`many` is not a number of cores");
    said(&["--data", "/d", "--capacity", "gpu=1.5"], "not a whole number");
    said(&["--data", "/d", "--listen", "n1:7411"], "the form IP:PORT");
    said(&["--data", "/d", "--advertise", "0.0.0.0:7411"], "of no single machine");
    said(&["--data", "/d", "--join", "n1"], "`n1` has no port");
    said(&["--data", "/d", "--join", "n1:7411"], "to join a cell takes a token");
    said(&["--data", "/d", "--token", &token()], "name one of its nodes with --join");
    said(&["--data", "/d", "--join", "n1:7411", "--token", "x"], "--token: this is not a join token");
    said(
        &["--data", "/d", "--join", "n1:7411", "--token", "@/nonexistent"],
        "cannot read the token in /nonexistent",
    );
    said(&["--config", file], "cannot read");
    for (text, wanted) in [
        ("name = \"n1\"", "give --data DIR, or data = \"DIR\""),
        ("data = \"/d\"\ncolour = 1", "unknown field `colour`"),
        ("data = \"/d\"\n[capacity]\nmemory = \"much\"", "`much` is not an amount"),
        ("data = \"/d\"\nlisten = \"7411\"", "the form IP:PORT"),
        ("data = \"/d\"\njoin = [\"n1\"]", "`n1` has no port"),
        ("data = \"/d\"\njoin = \"n1:1\"\ntoken = \"x\"", "covey.toml: this is not a join token"),
        ("data = \"/d\"\n[label]\n\"a b\" = \"c\"", "cannot be in a label"),
    ] {
        fs::write(&path, text).unwrap();
        said(&["--config", file], wanted);
    }
}
