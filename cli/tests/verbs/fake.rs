//! An agent that says what a test tells it to say, and keeps what it was asked.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use gossip::{
    frame,
    wire::{Call, Reply, Request},
};
use placement::ledger::Refusal;
use serde_json::Value;
use tempfile::TempDir;

/// What the agent does next on a connection. After the last step it closes the connection.
pub(crate) enum Step {
    Say(Reply),
    /// Waits until the client goes away.
    Wait,
    /// Goes away with its socket, and comes back.
    Restart,
}

pub(crate) fn item(document: Value) -> Step {
    Step::Say(Reply::Item(document))
}

pub(crate) fn end() -> Step {
    Step::Say(Reply::End)
}

pub(crate) fn refuse(code: &str, message: &str, hint: Option<&str>) -> Step {
    let hint = hint.map(str::to_owned);
    Step::Say(Reply::Error(Refusal { code: code.to_owned(), message: message.to_owned(), hint }))
}

pub(crate) struct Fake {
    dir: TempDir,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    /// Answers the n-th request (from 0) by `script(n, what is asked)`.
    pub(crate) fn new(script: impl FnMut(usize, &Call) -> Vec<Step> + Send + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn({
            let seen = seen.clone();
            move || serve(listener, socket, &seen, script)
        });
        Fake { dir, seen }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    /// Where contexts are.
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    /// A file beside the socket.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
        command.args(args).env("COVEY_SOCKET", self.socket()).stdin(Stdio::null());
        // Nobody's own contexts.
        command.env("XDG_CONFIG_HOME", self.config());
        command
    }

    /// Runs covey to its end.
    pub(crate) fn covey(&self, args: &[&str]) -> Done {
        Done::of(self.command(args).output().unwrap())
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.requests().into_iter().map(|request| request.call).collect()
    }
}

fn serve(
    mut listener: UnixListener,
    socket: PathBuf,
    seen: &Mutex<Vec<Request>>,
    mut script: impl FnMut(usize, &Call) -> Vec<Step>,
) {
    // Ends when the test's directory is gone.
    while let Ok((mut stream, _)) = listener.accept() {
        let Some(request) = read(&mut stream) else { continue };
        let steps = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            script(seen.len() - 1, &request.call)
        };
        let mut restart = false;
        for step in steps {
            match step {
                // The client may have seen enough.
                Step::Say(reply) => drop(stream.write_all(&frame::encode(&reply).unwrap())),
                Step::Wait => drop(stream.read(&mut [0])),
                Step::Restart => restart = true,
            }
        }
        if restart {
            std::fs::remove_file(&socket).unwrap();
            drop(stream);
            drop(listener);
            listener = UnixListener::bind(&socket).unwrap();
        }
    }
}

fn read(stream: &mut UnixStream) -> Option<Request> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut bytes).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        Done {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }
}
