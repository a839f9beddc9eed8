//! Requests: who may ask, and where each is decided. A client asks any node, on its local socket or over the network; what
//! only the placer or another node can answer is passed on, in one hop. What is asked is answered in `server/`.

mod advise;
mod cell;
mod change;
mod doctor;
mod events;
mod follow;
mod image;
mod leave;
mod locate;
mod log;
mod look;
mod member;
mod pass;
mod passed;
mod reach;
mod read;
mod usage;
mod volume;
mod watch;

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gossip::{
    frame::{self, FrameError},
    transport::Stream,
    wire::{
        Call, PROTOCOL, Reply, Request,
        ask::{Passed, To, VolumesOf},
        image::Login,
        stream::{self, Part},
    },
};
use placement::{
    ids::{NodeId, Principal},
    ledger::{ROOT, Refusal, RequestStamp, Role},
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::OwnedReadHalf},
    sync::Notify,
    time::timeout,
};

use self::{pass::Unpassed, read::Read};
use crate::{
    cell::Cell,
    daemon::{inbox::NodeHandle, placer::PlacerHandle},
    history::advice::Wish,
    identity::Held,
    images::Images,
    journal::Journal,
    ledger::LedgerHandle,
    left::Left,
    volumes::Volumes,
};
pub(crate) use passed::{passed, told};

/// All that answering a request can need.
pub(crate) struct Services {
    pub(crate) node: NodeHandle,
    pub(crate) placer: PlacerHandle,
    pub(crate) cell: Cell,
    pub(crate) identity: Held,
    pub(crate) ledger: LedgerHandle,
    pub(crate) journal: Journal,
    pub(crate) images: Images,
    pub(crate) volumes: Volumes,
    pub(crate) bundles: PathBuf,
    pub(crate) tree: oci::cgroup::Tree,
    /// Of runs that are over.
    pub(crate) logs: PathBuf,
    /// What containers have left.
    pub(crate) left_files: Left,
    /// The covey binary: what helpers are made of.
    pub(crate) exe: PathBuf,
    /// Told when this node has left the cell: its agent ends, and with it what still runs here.
    pub(crate) left: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("another agent answers on {0}: name another socket (--socket), or end that agent")]
    Taken(PathBuf),
    #[error("{0} is there and is no socket: name another path (--socket)")]
    NoSocket(PathBuf),
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// Listens on `path`, which only root may open. A socket that nobody answers on any more is replaced.
pub(crate) async fn listen(path: &Path) -> Result<UnixListener, ServerError> {
    let failed = |what| move |source| ServerError::Io { what, path: path.to_path_buf(), source };
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("create the directory of"))?;
    }
    if UnixStream::connect(path).await.is_ok() {
        return Err(ServerError::Taken(path.to_path_buf()));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ServerError::NoSocket(path.to_path_buf())),
        Ok(_) => fs::remove_file(path).map_err(failed("replace"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("look at")(e)),
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    // Everybody may connect, so that everybody gets an answer: whom the kernel does not call root is refused in words.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(failed("open to all"))?;
    Ok(listener)
}

/// What is read of a request that will be refused.
const STRANGER_BYTES: u64 = 64 << 10;
/// How long a request that will be refused is waited for.
const STRANGER_TIME: Duration = Duration::from_secs(1);

/// Serves for ever.
pub(crate) async fn serve(listener: UnixListener, services: Arc<Services>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let services = services.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &services).await {
                        // The client went away, or never was one: nobody is left to tell.
                        tracing::debug!("a request on the local socket: {error}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept on the local socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Where a call's answer goes. An error to write is the client's going: the call ends with it.
pub(crate) struct Out(Box<dyn AsyncWrite + Send + Unpin>);

impl Out {
    pub(crate) fn new(write: impl AsyncWrite + Send + Unpin + 'static) -> Out {
        Out(Box::new(write))
    }

    pub(crate) async fn send(&mut self, reply: &Reply) -> Result<(), Stopped> {
        match frame::write(&mut self.0, reply).await {
            // Nothing of it was written.
            Err(FrameError::TooLong(bytes)) => Err(too_large(bytes).into()),
            written => written.map_err(Stopped::Frame),
        }
    }

    /// Of what goes both ways, once it has begun.
    pub(crate) async fn part(&mut self, part: &Part) -> Result<(), Stopped> {
        stream::write(&mut self.0, part).await.map_err(Stopped::Frame)
    }

    pub(crate) async fn item(&mut self, document: Value) -> Result<(), Stopped> {
        self.send(&Reply::Item(document)).await
    }
}

fn too_large(bytes: usize) -> Refusal {
    let mib = |bytes: usize| bytes.div_ceil(1 << 20);
    Refusal {
        code: "too_large".into(),
        message: format!("the answer has {} MiB, and one may have {}", mib(bytes), mib(frame::MAX)),
        hint: Some("ask for less at a time: one job, or one task".into()),
    }
}

/// Why a call ended before its answer did.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stopped {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Frame(FrameError),
    #[error("this node does not place")]
    NotPlacer(Option<NodeId>),
}

impl From<Unpassed> for Stopped {
    fn from(failed: Unpassed) -> Stopped {
        match failed {
            Unpassed::Refused(refusal) => Stopped::Refused(refusal),
            Unpassed::NotPlacer(placer) => Stopped::NotPlacer(placer),
            Unpassed::Broken(why) => Stopped::Refused(no_quorum(why)),
        }
    }
}

async fn answer(stream: UnixStream, services: &Services) -> Result<(), FrameError> {
    let peer = stream.peer_cred().map_err(FrameError::Broken)?;
    let (mut read, write) = stream.into_split();
    let mut out = Out::new(write);
    if peer.uid() != 0 {
        return refuse(peer.uid(), &mut read, &mut out).await;
    }
    client(read, out, Client { principal: Principal(ROOT.into()), local: true }, services).await
}

/// Serves one request that came over the network, of `principal` by its certificate.
pub(crate) async fn remote(
    stream: Stream,
    principal: Principal,
    services: &Services,
) -> Result<(), FrameError> {
    let Stream { outgoing, incoming } = stream;
    client(incoming, Out::new(outgoing), Client { principal, local: false }, services).await
}

/// Who asks, as the kernel or a certificate says.
struct Client {
    principal: Principal,
    /// On this machine.
    local: bool,
}

async fn client(
    mut read: impl AsyncRead + Send + Unpin,
    mut out: Out,
    client: Client,
    services: &Services,
) -> Result<(), FrameError> {
    let Client { principal, local } = client;
    let request = match frame::read::<Request>(&mut read).await {
        Ok(Some(request)) => Request { principal: Some(principal), ..request },
        Ok(None) => return Ok(()),
        Err(FrameError::Broken(error)) => return Err(FrameError::Broken(error)),
        Err(error) => return finish(&mut out, Err(invalid(error.to_string()).into())).await,
    };
    let admitted = admit(&request).and_then(|stamp| {
        image_admitted(&request.call, &stamp, local, services)?;
        Ok(stamp)
    });
    let result = match admitted {
        Ok(stamp) if reach::opens(&request.call).is_some() => {
            let passed = Passed { request, to: To::Placer, images: None, task: None, run: None };
            let result = reach::client(services, passed, &stamp, &mut read, &mut out).await;
            return end_of_way(&mut out, result).await;
        }
        Ok(stamp) => tokio::select! {
            result = call(request, stamp, services, &mut out) => result,
            () = gone(&mut read) => return Ok(()),
        },
        Err(refusal) => Err(refusal.into()),
    };
    finish(&mut out, result).await
}

/// A client sends one frame: whatever else comes, at first its end, is its going.
async fn gone(read: &mut (impl AsyncRead + Unpin)) {
    let _ = frame::read::<Value>(read).await;
}

/// Whom the kernel does not call root has no credential yet: he hears so once he has asked, but gets neither the agent's
/// memory nor much of its time.
async fn refuse(uid: u32, read: &mut OwnedReadHalf, out: &mut Out) -> Result<(), FrameError> {
    let asked = &mut read.take(STRANGER_BYTES);
    let _ = timeout(STRANGER_TIME, frame::read::<Value>(asked)).await;
    let refusal = Refusal {
        code: "denied".into(),
        message: format!("user {uid} may not use this agent: only root may, on the local socket"),
        hint: Some("run it as root: sudo covey …".into()),
    };
    finish(out, Err(refusal.into())).await
}

/// Who asks what, once.
fn admit(request: &Request) -> Result<RequestStamp, Refusal> {
    if request.protocol != PROTOCOL {
        let hint = "use the covey that this agent was started from".to_string();
        let message = format!("this agent speaks {PROTOCOL}, the client `{}`", request.protocol);
        return Err(Refusal { code: "invalid".into(), message, hint: Some(hint) });
    }
    let principal = request.principal.clone();
    let principal = principal.ok_or_else(|| invalid("the request does not say who asks".to_string()))?;
    Ok(RequestStamp { principal, id: request.id.clone() })
}

/// Images are not in the ledger, so that this is decided here: a file is read on behalf of whoever is on the machine, and
/// what all jobs use is removed by admins.
fn image_admitted(
    call: &Call,
    stamp: &RequestStamp,
    local: bool,
    services: &Services,
) -> Result<(), Refusal> {
    let denied = |message: String, hint: &str| Refusal::new("denied", message, Some(hint));
    match call {
        Call::ImageLoad { .. } if !local => Err(denied(
            "an image is loaded from a file of the node's own machine".to_string(),
            "give the command there, as root",
        )),
        Call::Run { document, .. } if !local && change::names_a_file(document) => Err(denied(
            "an image of a file (file://) is made by the node whose machine the command is given on"
                .to_string(),
            "give the command there, as root; or load an image, which any node can run",
        )),
        Call::ImageRm { .. }
        | Call::ImagePrune { .. }
        | Call::ImageLogin { .. }
        | Call::ImageLogout { .. }
            if services.ledger.state().role(&stamp.principal) != Some(Role::Admin) =>
        {
            Err(denied(
                format!("`{}` is no admin: this concerns others' images", stamp.principal.0),
                "ask an admin, or root on any node",
            ))
        }
        _ => Ok(()),
    }
}

/// What went both ways has had its own last part.
async fn end_of_way(out: &mut Out, result: Result<(), Stopped>) -> Result<(), FrameError> {
    match result {
        Ok(()) => out.0.shutdown().await.map_err(FrameError::Broken),
        refused => finish(out, refused).await,
    }
}

async fn finish(out: &mut Out, result: Result<(), Stopped>) -> Result<(), FrameError> {
    let last = match result {
        Ok(()) => Reply::End,
        Err(Stopped::Refused(refusal)) => Reply::Error(refusal),
        Err(Stopped::NotPlacer(placer)) => Reply::NotPlacer { placer },
        Err(Stopped::Frame(error)) => return Err(error),
    };
    frame::write(&mut out.0, &last).await?;
    out.0.shutdown().await.map_err(FrameError::Broken)
}

/// A request of one of this node's clients.
async fn call(
    request: Request,
    stamp: RequestStamp,
    services: &Services,
    out: &mut Out,
) -> Result<(), Stopped> {
    let images = change::images(services, &request.call).await?;
    let passed = Passed { request, to: To::Placer, images, task: None, run: None };
    let call = &passed.request.call;
    if let Some(read) = Read::of(call, &stamp) {
        return out.item(look::look(services, &passed, &read).await?).await;
    }
    match call.clone() {
        Call::Watch { job } => watch::watch(services, &passed, &change::key(&stamp, &job), out).await,
        Call::Events { job, node, since_ms, follow } => {
            let filter = events::EventFilter::of(&stamp, events::EventFilter { job, node, since_ms });
            events::all(services, &passed, filter, follow, out).await
        }
        Call::Logs { job, index, follow, previous, tail, from, since_ms } => {
            let wanted = log::Wanted { follow, previous, tail, from, since_ms, run: None };
            let job = &change::key(&stamp, &job);
            follow::logs(services, &passed, follow::Index { job, index }, wanted, out).await
        }
        Call::ImageLoad { path, name } => image::load(services, path, name, out).await,
        Call::ImageLs => out.item(image::list(services).await?).await,
        Call::ImageRm { reference } => out.item(image::remove(services, reference).await?).await,
        Call::ImagePull { reference } => image::pull(services, reference, out).await,
        Call::ImagePrune { unused_ms } => out.item(image::prune(services, unused_ms).await).await,
        Call::ImageLogin { registry, user, password } => {
            out.item(image::login(services, &registry, Login { user, password }).await?).await
        }
        Call::ImageLogout { registry } => out.item(image::logout(services, &registry).await?).await,
        Call::VolumeRm { job, index, name, on } => {
            let of = VolumesOf { job: change::key(&stamp, &job), index, name };
            out.item(volume::remove(services, &stamp, of, on.as_deref()).await?).await
        }
        Call::Advise { job, risk, enough_ms } => {
            let wish = Wish { risk: risk.clamp(0.0, 1.0), enough_ms };
            let job = job.map(|job| change::key(&stamp, &job));
            out.item(advise::advise(services, job, wish).await?).await
        }
        Call::Usage { by } => out.item(usage::usage(services, by).await?).await,
        Call::Top => out.item(usage::top(services).await?).await,
        Call::Leave { deadline_ms } => leave::leave(services, &passed.request, deadline_ms, out).await,
        Call::Doctor => out.item(doctor::doctor(services).await).await,
        change => {
            let here = || change::decide(services, &stamp, &change, passed.images.as_ref());
            out.item(pass::insist(&services.cell, &passed, here).await?).await
        }
    }
}

fn no_quorum(why: String) -> Refusal {
    Refusal {
        code: "no_quorum".into(),
        message: why,
        hint: Some("the same command may be given again; covey nodes shows who is here and who votes".into()),
    }
}

pub(crate) fn invalid(message: String) -> Refusal {
    Refusal { code: "invalid".into(), message, hint: None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A message that never ends, and one of the greatest length, cost no more than others.
    #[tokio::test]
    async fn a_stranger_is_refused_whatever_he_sends() {
        use tokio::io::AsyncWriteExt;
        let (client, server) = UnixStream::pair().unwrap();
        let (mut from, mut to) = client.into_split();
        let sending = tokio::spawn(async move {
            to.write_all(&(8_u32 << 20).to_be_bytes()).await.unwrap();
            // Ends when nobody reads any more.
            while to.write_all(&[b' '; 4096]).await.is_ok() {}
        });
        let (mut read, write) = server.into_split();
        refuse(1000, &mut read, &mut Out::new(write)).await.unwrap();
        drop(read);
        let reply: Reply = frame::read(&mut from).await.unwrap().unwrap();
        assert!(matches!(reply, Reply::Error(refusal) if refusal.code == "denied"));
        sending.await.unwrap();
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_answers_on_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("job.toml");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(listen(&file).await, Err(ServerError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

        let socket = temp.path().join("made/agent.sock");
        let first = listen(&socket).await.unwrap();
        assert!(matches!(listen(&socket).await, Err(ServerError::Taken(_))));
        drop(first);
        listen(&socket).await.unwrap();
    }
}
