use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Stdio};

use crate::cell::{Cell, Task};

/// Asks ($0) for its health, with the head of the request sent before a line is read and the rest after it.
const SLOWLY: &str = r#"
    exec 3<>"/dev/tcp/${0%:*}/${0#*:}"
    printf 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n' >&3
    echo open
    read go
    printf '\r\n' >&3
    head -n 1 <&3
"#;

/// Tasks with networks of their own are reached through their host from everywhere, with their agent dead too; and
/// nothing of theirs is left behind them.
#[test]
fn what_a_task_publishes_is_reached_through_its_host() {
    let cell = Cell::of("private-network", 2);
    cell.run("h2", &cell.private("web", 2, "r1", "http", "${PORT_http}"));
    cell.run("h2", &cell.private("fixed", 1, "r1", "http=80", "80"));
    let h1 = ["h1".to_owned()];
    let web = cell.running("h2", "web", 2, &h1);
    let fixed = cell.running("h2", "fixed", 1, &h1)[&0].clone();
    assert_ne!(web[&0].port, web[&1].port, "two replicas on one node");

    let tasks: Vec<&Task> = web.values().chain([&fixed]).collect();
    for task in &tasks {
        for (from, to) in [("h2", "10.77.0.1"), ("h1", "10.77.0.1"), ("h1", "127.0.0.1")] {
            assert_eq!(health(&cell, from, "", &format!("{to}:{}", task.port)), "200", "{from} to {to}");
        }
        // From each other's containers, and from their own.
        for other in &tasks {
            let inside = format!("nsenter --net=/proc/{}/ns/net ", other.pid);
            assert_eq!(health(&cell, "h1", &inside, &format!("10.77.0.1:{}", task.port)), "200", "{other:?}");
        }
        let shown =
            cell.covey("h2", &["task", &format!("{}/{}", name_of(task, &fixed), task.index)]).unwrap();
        assert!(shown.contains("  address     10."), "{shown}");
    }

    // The agent is killed while somebody is in the middle of a request.
    let to = format!("10.77.0.1:{}", web[&0].port);
    let mut slow = cell.exec("h2", "/bin/bash").unwrap();
    let mut slow =
        slow.args(["-ec", SLOWLY, &to]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(slow.stdout.take().unwrap());
    assert_eq!(line(&mut said), "open");
    cell.kill("h1").unwrap();
    assert_eq!(health(&cell, "h2", "", &to), "200", "nobody but the kernel is needed");
    cell.start("h1").unwrap();
    assert_eq!(cell.running("h1", "web", 2, &h1), web);
    go_on(&mut slow);
    assert!(line(&mut said).contains("200"), "it went on");
    assert!(slow.wait().unwrap().success());
    assert_eq!(health(&cell, "h2", "", &to), "200");

    for name in ["web", "fixed"] {
        cell.covey("h2", &["stop", name]).unwrap();
    }
    cell.wait("nothing is left on h1", || {
        let links = cell.says("h1", "ls /proc/sys/net/ipv4/conf; nft list tables");
        match links.lines().any(|line| line.starts_with("cv") || line.contains("covey-")) {
            true => Err(links),
            false => Ok(()),
        }
    });
}

fn name_of(task: &Task, fixed: &Task) -> &'static str {
    if task == fixed { "fixed" } else { "web" }
}

/// The status that `/healthz` answers with at an address, asked from a host, or, with `inside`, from somewhere in it.
fn health(cell: &Cell, from: &str, inside: &str, to: &str) -> String {
    let (address, port) = to.split_once(':').unwrap();
    let ask = format!(
        r#"exec 3<>/dev/tcp/{address}/{port}; printf "GET /healthz HTTP/1.0\r\n\r\n" >&3; read -r _ status _ <&3; echo $status"#
    );
    cell.says(from, &format!("{inside}timeout 20 bash -ec '{ask}'")).trim().to_owned()
}

fn line(said: &mut impl BufRead) -> String {
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn go_on(child: &mut Child) {
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
}
