//! A node on which an image is run and used.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Output,
    time::{Duration, Instant},
};

use serde_json::Value;
use test_vms::node::Node;

use crate::image::Finished;

/// Many times what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Used {
    node: Node,
    job: &'static str,
}

impl Used {
    /// Loads the image and runs it as `job`, `task` being the rest of the job's table.
    pub(crate) fn run(image: &Finished, job: &'static str, task: &str) -> Used {
        let node = Node::start().unwrap();
        let used = Used { node, job };
        used.said(&["image", "load", &image.path().display().to_string(), "--name", &image.name]);
        let text = format!("name = \"{job}\"\n{}\n[task]\nimage = \"{}\"\n{task}\n", kind(task), image.name);
        let text = text.replace("#batch", "");
        used.node.run(job, &text).unwrap_or_else(|why| panic!("{why}\n{}", used.log()));
        used
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.node.covey(args).output().unwrap()
    }

    pub(crate) fn said(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "covey {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn name(&self) -> String {
        format!("{}/0", self.job)
    }

    pub(crate) fn task(&self) -> Value {
        self.node.json(&["task", &self.name()]).unwrap()
    }

    /// Both streams, one after the other.
    pub(crate) fn log(&self) -> String {
        let output = self.output(&["logs", &self.name()]);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// What a command in the container says.
    pub(crate) fn exec(&self, command: &[&str]) -> String {
        self.said(&[&["exec", &self.name(), "--"], command].concat())
    }

    /// Sends `request` to a port until the answer holds `wanted`.
    pub(crate) fn ask(&self, port: &str, request: &[u8], wanted: &str) {
        let number = self.task()["ports"][port].as_u64().unwrap_or_else(|| panic!("{}", self.task()));
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = ask(number as u16, request, wanted.len());
            if answer.as_ref().is_ok_and(|answer| answer.contains(wanted)) {
                return;
            }
            assert!(Instant::now() < until, "{answer:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the log holds `wanted`.
    pub(crate) fn logged(&self, wanted: &str) {
        self.until(wanted, |used| used.log().contains(wanted));
    }

    /// Waits until it is so.
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Used) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !so(self) {
            assert!(Instant::now() < until, "not yet: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts the task again, in place.
    pub(crate) fn restart(&self) {
        let before = self.task();
        self.said(&["restart", self.job]);
        self.until("it is healthy again", |used| {
            let now = used.task();
            now["pid"] != before["pid"] && now["healthy"] == true && now["generation"] == before["generation"]
        });
    }

    /// What the node has in a directory of its data directory.
    pub(crate) fn kept(&self, dir: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.node.data().join(dir)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Stops the job; says how its container ended.
    pub(crate) fn stop(&self) -> String {
        self.node.stop(self.job).unwrap();
        let events = self.node.items(&["events", "--job", self.job]).unwrap();
        let ended = events.iter().rfind(|event| event["kind"] == "exited");
        ended.map_or_else(|| format!("{events:?}"), |event| event["text"].as_str().unwrap().to_owned())
    }
}

fn kind(task: &str) -> &'static str {
    if task.contains("#batch") { "kind = \"batch\"" } else { "" }
}

/// Reads until `least` bytes have come, or no more come.
fn ask(port: u16, request: &[u8], least: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(request)?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        answer.extend(&buffer[..n]);
        if answer.len() >= least.max(1) && answer.ends_with(b"\n") {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
