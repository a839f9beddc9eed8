#![allow(clippy::unwrap_used)]

use clap::Parser;

use super::*;
use crate::args::{Cli, Verb};

fn parsed(args: &[&str]) -> Result<Config, String> {
    let line = ["covey", "agent"].iter().chain(args);
    let cli = Cli::try_parse_from(line).map_err(|why| why.to_string())?;
    let Verb::Agent(agent) = cli.verb else { return Err("another verb".into()) };
    config(agent, cli.global.socket, PathBuf::from("/bin/covey")).map_err(|why| why.to_string())
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
    said(&["--data", "/d", "--join", "n1:7411"], "unexpected argument '--join'");
    said(&["--config", file], "cannot read");
    for (text, wanted) in [
        ("name = \"n1\"", "give --data DIR, or data = \"DIR\""),
        ("data = \"/d\"\ncolour = 1", "unknown field `colour`"),
        ("data = \"/d\"\n[capacity]\nmemory = \"much\"", "`much` is not an amount"),
        ("data = \"/d\"\n[label]\n\"a b\" = \"c\"", "cannot be in a label"),
    ] {
        fs::write(&path, text).unwrap();
        said(&["--config", file], wanted);
    }
}
