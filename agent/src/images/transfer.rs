//! One blob, from one node after another until it is here, or else from the image's registry.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gossip::{
    transport::Stream,
    wire::{
        ask::{Question, Told},
        image::{ImageQuestion, ImageTold},
    },
};
use oci::{
    content::{self, Incoming, Lease, Part},
    digest::Digest,
    reference::Reference,
};
use placement::ids::NodeId;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{FetchError, Images, flight::Phase, locked, pull::Elsewhere, serve::BUSY};
use crate::peers::AskError;

/// Bytes of a piece: what is in memory of each blob.
const PIECE: usize = 256 << 10;
/// So many bytes must come in the time of a piece, or the node counts as stuck; while another has the blob too, a piece.
const CREEP: usize = 16 << 10;
/// A node that breaks off so often is not asked for this blob again. One that breaks off with nothing to show for, once.
const BREAKS: u32 = 3;
/// After so many refusals for want of time, others are looked for: somebody may have it by now.
const BUSY_TIMES: u32 = 4;

/// A registry is asked once more for what was wrong: it may have been the way here.
const WRONG_AT_REGISTRY: u32 = 2;

/// How a node's part in it ended, or the registry's.
pub(super) enum End {
    Whole,
    /// What came until then is of use.
    Broke(String),
    /// Nothing that it gives can be right.
    Wrong(String),
    Busy,
    /// It is this node that fails.
    Here(String),
}

impl Images {
    /// Brings in one blob from one of those that have it, else from the registry that the image's name leads to. The lease
    /// holds it.
    pub(super) async fn transfer(
        &self,
        image: &str,
        part: Part,
        mut from: Vec<NodeId>,
        phase: &watch::Sender<Phase>,
    ) -> Result<Lease, FetchError> {
        let turn = self.turn(part.digest);
        let _turn = turn.lock().await;
        let _slot = self.0.incoming.acquire().await;
        let mut lease = self.0.store.lease();
        lease.hold(&part.digest);
        let here = self.0.store.size_of(&part.digest);
        if here.is_some() && (part.size.is_none() || part.size == here) && self.is_sound(&part) {
            // Somebody else has brought it meanwhile, for another image.
            progress(phase, |moving| {
                moving.total = moving.total.saturating_sub(part.size.unwrap_or_default())
            });
            return Ok(lease);
        }
        let registry = self.0.registries.reference(image);
        // By node; none is the registry.
        let mut breaks = BTreeMap::<Option<NodeId>, u32>::new();
        let mut why = BTreeMap::<Option<NodeId>, String>::new();
        let mut givers = BTreeSet::<Option<NodeId>>::new();
        let mut incoming = self.resume(image, &part).await?;
        // Whoever gave what is left of an earlier try.
        let mut resumed = received(&incoming) > 0;
        progress(phase, |moving| moving.total = moving.total.saturating_sub(received(&incoming)));
        // Once a blob of several givers was wrong, each gives the whole of it: so it is known who is wrong.
        let mut alone = false;
        let mut busy = 0;
        loop {
            let is_able = |giver: &Option<NodeId>| breaks.get(giver).is_none_or(|b| *b < BREAKS);
            let able: Vec<NodeId> = from.iter().copied().filter(|node| is_able(&Some(*node))).collect();
            let giver = self.choose(&able, &breaks, &part.digest);
            let before = received(&incoming);
            // Until it is seen here: others would not know else that it has come.
            let mut _coming = None;
            let (node, end) = match (&giver, &registry) {
                (Some(giver), _) => {
                    let floor = if able.len() > 1 { PIECE } else { CREEP };
                    (Some(giver.node), self.take(giver, &part, &mut incoming, floor, phase).await)
                }
                (None, Some(reference)) if is_able(&None) => {
                    let intent = self.intend(part.digest);
                    match self.elsewhere(&part).await {
                        Elsewhere::Has(nodes) if nodes.iter().any(|node| is_able(&Some(*node))) => {
                            from = nodes;
                            continue;
                        }
                        Elsewhere::Comes => {
                            drop(intent);
                            sleep(self.again()).await;
                            continue;
                        }
                        _ => intent.begin(),
                    }
                    _coming = Some(intent);
                    (None, self.pull(reference, &part, &mut incoming, phase).await)
                }
                _ => {
                    let Part { what, digest, .. } = part;
                    let name = |node: Option<NodeId>| node.map(|node| self.name(node));
                    let said = |(node, why): (_, String)| {
                        name(node).map_or(why.clone(), |name| format!("{name}: {why}"))
                    };
                    let why = why.into_iter().map(said).collect();
                    return Err(FetchError::Broken { image: image.to_string(), what, digest, why });
                }
            };
            if received(&incoming) > before {
                givers.insert(node);
            }
            let broke = match end {
                End::Whole => {
                    let Some(whole) = incoming.take() else { continue };
                    let size = whole.size();
                    match self.adopt(whole, lease).await {
                        (held, Ok(())) => return Ok(held),
                        (held, Err(content::Error::Mismatch { .. })) => {
                            lease = held;
                            progress(phase, |moving| moving.done = moving.done.saturating_sub(size));
                            if givers.len() > 1 || resumed {
                                (alone, resumed) = (true, false);
                                givers.clear();
                                continue;
                            }
                            // Known: the others may take turns again.
                            (alone, givers) = (false, BTreeSet::new());
                            tracing::warn!(
                                "{} of {} has other content than its digest says",
                                part.digest,
                                self.giver_name(node, &registry)
                            );
                            let text = match node {
                                Some(_) => "sent what does not match the digest".to_string(),
                                None => {
                                    let name = self.giver_name(node, &registry);
                                    format!("{name} sent what does not match the digest")
                                }
                            };
                            Some((text, if node.is_some() { BREAKS } else { WRONG_AT_REGISTRY }))
                        }
                        (_, Err(error)) => return Err(here_failed(image, error)),
                    }
                }
                End::Broke(text) => {
                    let gained = received(&incoming) > before;
                    Some((text, if gained { 1 } else { BREAKS }))
                }
                End::Wrong(text) => Some((text, BREAKS)),
                End::Busy => None,
                End::Here(why) => return Err(FetchError::Store { image: image.to_string(), why }),
            };
            match broke {
                Some((text, weight)) => {
                    *breaks.entry(node).or_default() += weight;
                    why.insert(node, text);
                    if alone && let Some(part_of_it) = incoming.take() {
                        progress(phase, |moving| {
                            moving.done = moving.done.saturating_sub(part_of_it.received())
                        });
                        part_of_it.discard();
                        givers.clear();
                    }
                }
                None => {
                    busy += 1;
                    drop(giver);
                    sleep(self.again()).await;
                    if busy % BUSY_TIMES == 0 {
                        let now = self.who_has(&[part.digest]).await;
                        from = now.of.get(&part.digest).cloned().unwrap_or(from);
                    }
                }
            }
        }
    }

    /// What is left of an earlier try. It is read, to be hashed.
    async fn resume(&self, image: &str, part: &Part) -> Result<Option<Incoming>, FetchError> {
        let (Some(size), store, part) = (part.size, self.0.store.clone(), *part) else { return Ok(None) };
        match spawn_blocking(move || store.receive(&part, size)).await {
            Ok(incoming) => incoming.map(Some).map_err(|error| here_failed(image, error)),
            Err(_) => Err(FetchError::BrokeOff { image: image.to_string() }),
        }
    }

    fn giver_name(&self, node: Option<NodeId>, registry: &Option<Reference>) -> String {
        match (node, registry) {
            (Some(node), _) => self.name(node),
            (None, Some(reference)) => self.registry_name(reference),
            (None, None) => String::new(),
        }
    }

    /// A manifest that is here may be damaged; the rest is looked at when it is unpacked.
    fn is_sound(&self, part: &Part) -> bool {
        part.size.is_some()
            || self.0.store.missing(&part.digest).is_ok_and(|m| m.iter().all(|p| p.size.is_some()))
    }

    async fn adopt(&self, whole: Incoming, mut lease: Lease) -> (Lease, Result<(), content::Error>) {
        let store = self.0.store.clone();
        let done = spawn_blocking(move || {
            let adopted = store.adopt(whole, &mut lease);
            (lease, adopted)
        });
        match done.await {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Bytes from one node, as far as it goes.
    async fn take(
        &self,
        giver: &Giver,
        part: &Part,
        incoming: &mut Option<Incoming>,
        floor: usize,
        phase: &watch::Sender<Phase>,
    ) -> End {
        let pace = self.0.pace.piece;
        let (size, mut stream) = match timeout(pace, self.begin(giver.node, part, received(incoming))).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(end)) => return end,
            Err(_) => return End::Broke(format!("did not begin within {} s", pace.as_secs_f32())),
        };
        let wanted = incoming.as_ref().map(Incoming::size).or(part.size);
        if wanted.is_some_and(|wanted| wanted != size) || (wanted.is_none() && size > Part::MANIFEST_MAX) {
            return End::Wrong(format!("has {size} bytes under that digest"));
        }
        let mut blob = match incoming.take() {
            Some(blob) => blob,
            None => match self.0.store.receive(part, size) {
                Ok(blob) => blob,
                Err(error) => return End::Here(error.to_string()),
            },
        };
        let name = self.name(giver.node);
        let mut piece = vec![0; PIECE];
        while blob.received() < size {
            let left = usize::try_from(size - blob.received()).unwrap_or(PIECE).min(PIECE);
            let (filled, stop) = fill(&mut stream, &mut piece[..left], pace, floor).await;
            if filled > 0 {
                let result;
                (blob, piece, result) = write(blob, piece, filled).await;
                if let Err(error) = result {
                    return End::Here(error.to_string());
                }
                progress(phase, |moving| {
                    moving.done += filled as u64;
                    // A manifest's size is not known beforehand.
                    moving.total = moving.total.max(moving.done);
                    if !moving.from.contains(&name) {
                        moving.from.insert(name.clone());
                    }
                });
            }
            if let Some(why) = stop {
                let got = blob.received();
                *incoming = Some(blob);
                return End::Broke(format!("{why} after {got} of {size} bytes"));
            }
        }
        *incoming = Some(blob);
        End::Whole
    }

    async fn begin(&self, node: NodeId, part: &Part, from: u64) -> Result<(u64, Stream), End> {
        let question = Question::Image(ImageQuestion::Blob { digest: part.digest.to_string(), from });
        let broke = |error: AskError| match error {
            AskError::Refused { refusal, .. } if refusal.code == BUSY => End::Busy,
            AskError::Refused { refusal, .. } => End::Wrong(refusal.message),
            other => End::Broke(other.of_it()),
        };
        let mut answers = self.0.cell.peers.begin(node, &question).await.map_err(broke)?;
        match answers.next().await.map_err(broke)? {
            Told::Image(ImageTold::Blob { size }) => Ok((size, answers.stream)),
            _ => Err(End::Wrong("answered another question".into())),
        }
    }

    /// The node that broke off least often and gives least to this one now; between equals each blob has its own order.
    fn choose(
        &self,
        able: &[NodeId],
        breaks: &BTreeMap<Option<NodeId>, u32>,
        blob: &Digest,
    ) -> Option<Giver> {
        let mut givers = locked(&self.0.givers);
        let broke = |node: &NodeId| breaks.get(&Some(*node)).copied().unwrap_or_default();
        let load = |node: &NodeId| givers.get(node).copied().unwrap_or_default();
        let order = |node: &NodeId| Digest::of(format!("{blob} {node}").as_bytes());
        let node = *able.iter().min_by_key(|node| (broke(node), load(node), order(node)))?;
        *givers.entry(node).or_default() += 1;
        Some(Giver { images: self.clone(), node })
    }

    fn turn(&self, blob: Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = locked(&self.0.turns);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&blob).and_then(std::sync::Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(blob, Arc::downgrade(&turn));
        turn
    }
}

/// Counted while it gives.
struct Giver {
    images: Images,
    node: NodeId,
}

impl Drop for Giver {
    fn drop(&mut self) {
        let mut givers = locked(&self.images.0.givers);
        if let Some(count) = givers.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                givers.remove(&self.node);
            }
        }
    }
}

pub(super) fn received(incoming: &Option<Incoming>) -> u64 {
    incoming.as_ref().map_or(0, Incoming::received)
}

fn here_failed(image: &str, error: content::Error) -> FetchError {
    FetchError::Store { image: image.to_string(), why: error.to_string() }
}

/// Changes the numbers of a fetch that moves.
/// Writes the first `filled` bytes of `piece` to the blob, and gives both back.
pub(super) async fn write(
    mut blob: Incoming,
    piece: Vec<u8>,
    filled: usize,
) -> (Incoming, Vec<u8>, Result<(), content::Error>) {
    let written = spawn_blocking(move || {
        let written = blob.write(&piece[..filled]);
        (blob, piece, written)
    });
    match written.await {
        Ok(written) => written,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

pub(super) fn progress(phase: &watch::Sender<Phase>, change: impl FnOnce(&mut super::flight::Moving)) {
    phase.send_if_modified(|phase| match phase {
        Phase::Fetching(moving) => {
            change(moving);
            true
        }
        _ => false,
    });
}

/// Fills the piece, and says how far and why no further. In the time of a piece so many bytes must come.
async fn fill(
    stream: &mut Stream,
    piece: &mut [u8],
    pace: std::time::Duration,
    floor: usize,
) -> (usize, Option<String>) {
    let until = Instant::now() + pace;
    let mut filled = 0;
    while filled < piece.len() {
        match timeout_at(until, stream.incoming.read(&mut piece[filled..])).await {
            Ok(Ok(Some(n))) => filled += n,
            Ok(Ok(None)) => return (filled, Some("ended".into())),
            Ok(Err(error)) => return (filled, Some(format!("broke off ({error})"))),
            Err(_) if filled >= floor => break,
            Err(_) => return (filled, Some(format!("was stuck for {} s", pace.as_secs_f32()))),
        }
    }
    (filled, None)
}
