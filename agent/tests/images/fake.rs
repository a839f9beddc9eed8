//! A registry that fails as it is told: HTTP by hand, one request a connection.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use oci::{content::Store, digest::Digest};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What is larger than this is a layer.
const LAYER: usize = 64 << 10;

/// How the registry answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answers {
    Well,
    /// This status, to everything.
    Status(u16, &'static str),
    /// Never.
    Not,
    /// Layers with one byte changed, so often.
    Wrong(u32),
    /// Layers break off after so many bytes of the answer, so often; the second: whether it knows ranges.
    Cut(usize, u32, bool),
    /// Half of a layer, and the rest when `Fake::go` says so.
    Held,
    /// Only to this `Authorization`.
    Basic(&'static str),
}

/// What a path leads to.
#[derive(Clone)]
struct Document {
    media_type: String,
    bytes: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Fake {
    /// `127.0.0.1:PORT`
    pub(crate) host: String,
    content: Arc<Mutex<BTreeMap<String, Document>>>,
    answers: Arc<Mutex<Answers>>,
    /// Paths, with ranges, of all requests for layers.
    layers: Arc<Mutex<Vec<String>>>,
    go: Arc<watch::Sender<bool>>,
}

impl Fake {
    pub(crate) async fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake {
            host: listener.local_addr().unwrap().to_string(),
            content: Arc::default(),
            answers: Arc::new(Mutex::new(Answers::Well)),
            layers: Arc::default(),
            go: Arc::new(watch::Sender::new(false)),
        };
        let here = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let here = here.clone();
                // Whoever asks may leave at any time.
                tokio::spawn(async move { drop(here.serve(stream).await) });
            }
        });
        fake
    }

    pub(crate) fn answers(&self, how: Answers) {
        *self.answers.lock().unwrap() = how;
    }

    pub(crate) fn go(&self) {
        self.go.send_replace(true);
    }

    /// The requests for layers since the last call.
    pub(crate) fn layers(&self) -> Vec<String> {
        std::mem::take(&mut *self.layers.lock().unwrap())
    }

    pub(crate) fn put(&self, path: &str, media_type: &str, bytes: Vec<u8>) {
        let path = path.to_string();
        self.content.lock().unwrap().insert(path, Document { media_type: media_type.to_string(), bytes });
    }

    pub(crate) fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        for name in [tag.to_string(), Digest::of(bytes).to_string()] {
            self.put(&format!("/v2/{repository}/manifests/{name}"), media_type, bytes.to_vec());
        }
    }

    /// Gives an image of a store as `repository:tag`; its reference.
    pub(crate) fn publish(&self, store: &Store, image: &Digest, repository: &str, tag: &str) -> String {
        let read = |digest: &str| {
            let hex = digest.strip_prefix("sha256:").unwrap();
            std::fs::read(store.root().join("blobs/sha256").join(hex)).unwrap()
        };
        let manifest = read(&image.to_string());
        let document: Value = serde_json::from_slice(&manifest).unwrap();
        let layers = document["layers"].as_array().unwrap();
        for blob in layers.iter().chain([&document["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            let path = format!("/v2/{repository}/blobs/{digest}");
            self.put(&path, "application/octet-stream", read(digest));
        }
        self.put_manifest(repository, tag, "application/vnd.oci.image.manifest.v1+json", &manifest);
        format!("{}/{repository}:{tag}", self.host)
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split_whitespace().nth(1).unwrap().to_string();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_string())
        };
        let answers = self.answers.lock().unwrap().clone();
        match &answers {
            Answers::Status(status, body) => return say(&mut stream, *status, "", body.as_bytes()).await,
            Answers::Not => return std::future::pending().await,
            Answers::Basic(wanted) if header("authorization").as_deref() != Some(*wanted) => {
                let asks = "WWW-Authenticate: Basic realm=\"test\"\r\n";
                return say(&mut stream, 401, asks, b"").await;
            }
            _ => {}
        }
        let found = self.content.lock().unwrap().get(&path).cloned();
        let Some(Document { media_type, mut bytes }) = found else {
            let body = br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#;
            return say(&mut stream, 404, "", body).await;
        };
        let kind = format!("Content-Type: {media_type}\r\n");
        if bytes.len() < LAYER {
            return say(&mut stream, 200, &kind, &bytes).await;
        }
        let range = header("range");
        self.layers.lock().unwrap().push(range.clone().unwrap_or_default());
        let mut cut = None;
        let mut from = 0;
        let ranges = !matches!(answers, Answers::Cut(_, _, false));
        if let Some(range) = range.filter(|_| ranges) {
            from = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
        }
        match answers {
            Answers::Wrong(left) if left > 0 => {
                self.answers(Answers::Wrong(left - 1));
                *bytes.last_mut().unwrap() ^= 1;
            }
            Answers::Cut(after, left, ranges) if left > 0 && bytes.len() - from > after => {
                self.answers(Answers::Cut(after, left - 1, ranges));
                cut = Some(after);
            }
            _ => {}
        }
        let rest = &bytes[from..];
        let status = if from > 0 { 206 } else { 200 };
        let head = format!(
            "HTTP/1.1 {status} X\r\n{kind}Content-Length: {}\r\nConnection: close\r\n\r\n",
            rest.len()
        );
        stream.write_all(head.as_bytes()).await?;
        let first = cut.unwrap_or(if answers == Answers::Held { rest.len() / 2 } else { rest.len() });
        stream.write_all(&rest[..first]).await?;
        if answers == Answers::Held {
            let _ = self.go.subscribe().wait_for(|go| *go).await;
            stream.write_all(&rest[first..]).await?;
        }
        stream.shutdown().await
    }
}

async fn say(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.shutdown().await
}
