use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use test_vms::lab;

use crate::cell::{Cell, names};

/// Somebody looks into a task from another node than its own: commands, files, its port, its logs; and hears of it when that
/// node is gone.
#[test]
fn a_task_is_reached_through_every_node() {
    let cell = Cell::of("reach", 2);
    cell.run("h1", &cell.web("web", 2));
    let tasks = cell.running("h1", "web", 2, &names(&["h1", "h2"]));
    let far = tasks.values().find(|task| task.node == "h2").expect("one task on each node");
    let name = format!("web/{}", far.index);
    let through = |args: &[&str]| -> Command {
        let mut command = cell.exec("h1", "covey").unwrap();
        command.args(args);
        command
    };
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };

    let path = |file: &str| format!("{name}:{file}");
    said(&mut through(&["cp", "/bin/busybox", &path("/busybox")]));
    let script = "/busybox cat >/kept; echo $COVEY_NODE; exit 9";
    let mut cat = through(&["exec", &name, "--", "/busybox", "sh", "-c", script]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let sent = vec![7; 3_000_000];
    cat.stdin.take().unwrap().write_all(&sent).unwrap();
    let output = cat.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(9), &b"h2\n"[..]), "{output:?}");
    let back = lab::directory(cell.name()).join("kept");
    said(&mut through(&["cp", &path("/kept"), &back.display().to_string()]));
    assert!(fs::read(&back).unwrap() == sent);
    let by = cell.json("h1", &["events", "--job", "web"]).unwrap();
    let noted = |event: &Value| {
        let text = event["text"].as_str().unwrap();
        event["kind"] == "exec" && event["node"] == "h2" && text.starts_with("root executes")
    };
    assert!(by["items"].as_array().unwrap().iter().any(noted), "{by:#}");

    assert!(forwarded(&cell, &name, "http", "/env").contains(&format!("\"COVEY_INDEX\":\"{}\"", far.index)));
    // Where it has a network of its own, by its own number too.
    let own = cell.private("own", 1, "r2", "http=80", "80");
    cell.run("h1", &own);
    cell.running("h1", "own", 1, &names(&["h2"]));
    for port in ["http", "80"] {
        assert!(forwarded(&cell, "own/0", port, "/env").contains("\"COVEY_JOB\":\"own\""), "{port}");
    }

    let first = said(&mut through(&["logs", &name]));
    assert!(!first.is_empty());
    said(&mut through(&["restart", &name]));
    cell.wait("the log before the restart", || {
        let output = through(&["logs", "--previous", &name]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() && text.starts_with(&first) { Ok(()) } else { Err(format!("{output:?}")) }
    });
    fs::remove_file(&back).unwrap();
    said(&mut through(&["cp", "--previous", &path("/kept"), &back.display().to_string()]));
    assert!(fs::read(&back).unwrap() == sent);
    cell.wait("how far the log had got is noted", || {
        let later = said(&mut through(&["logs", "--since", "2099-01-01T00:00:00Z", &name]));
        if later.is_empty() { Ok(()) } else { Err(later) }
    });

    // A job that was stopped and is created again has the log of its namesake for the one before.
    let before = said(&mut through(&["logs", "own/0"]));
    let nothing = cell.refused("h1", &["logs", "--previous", "own/0"]);
    assert!(nothing.contains("nor had an earlier job of this name one"), "{nothing}");
    said(&mut through(&["cp", "/bin/busybox", "own/0:/left"]));
    said(&mut through(&["stop", "own"]));
    cell.sees("h1", "own", "nothing", <[_]>::is_empty);
    let left = lab::directory(cell.name()).join("left");
    said(&mut through(&["cp", "own/0:/left", &left.display().to_string()]));
    assert!(fs::read(&left).unwrap() == fs::read("/bin/busybox").unwrap());
    cell.run("h1", &own);
    assert_eq!(said(&mut through(&["logs", "--previous", "own/0"])).lines().next(), before.lines().next());

    // By its name, and not by its id; of a task that can go nowhere else meanwhile.
    let id = cell.nodes("h1").unwrap().iter().find(|node| node["name"] == "h2").unwrap()["id"].clone();
    cell.crash("h2").unwrap();
    let refused = cell.wait("what cannot be reached is said", || {
        let output = through(&["exec", "own/0", "--", "/hello", "--version"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(125) && text.contains("h2") {
            Ok(text)
        } else {
            Err(format!("{output:?}"))
        }
    });
    assert!(refused.contains("cannot execute a command"), "{refused}");
    assert!(!refused.contains(id.as_str().unwrap()), "{refused}");
}

/// What a path answers, asked on h1 through a forwarded port.
fn forwarded(cell: &Cell, task: &str, port: &str, path: &str) -> String {
    let mut forward = cell.exec("h1", "covey").unwrap();
    forward.args(["port-forward", "--json", task, &format!("0:{port}")]).stdout(Stdio::piped());
    let mut forward = forward.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(forward.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let shown: Value = serde_json::from_str(&line).unwrap();
    let (address, number) = shown["address"].as_str().unwrap().split_once(':').unwrap();
    let ask = format!(
        r#"exec 3<>/dev/tcp/{address}/{number}; printf "GET {path} HTTP/1.0\r\n\r\n" >&3; timeout 20 cat <&3"#
    );
    let answer = cell.says("h1", &format!("bash -ec '{ask}'"));
    kill(Pid::from_raw(i32::try_from(forward.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(forward.wait().unwrap().success());
    answer
}
