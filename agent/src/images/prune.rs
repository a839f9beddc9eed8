//! What nobody uses goes: by age, when the disk fills, or at a user's word. Each node decides about what it has; what a
//! job of the ledger or a run of this node uses is never touched, nor what is on its way.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use gossip::wire::image::{ImageQuestion, ImageTold};
use oci::{
    content::{self, Held, Store},
    digest::Digest,
};
use placement::ledger::Refusal;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{Images, bytes, listed};
use crate::{
    clock,
    left::{self, Left},
    logs,
};

/// When what nobody uses goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Images that no job has used for so long.
    pub unused: Duration,
    /// Of the data directory's file system, in per cent: above the first, the images unused for longest go until it is
    /// below the second.
    pub above: u8,
    pub below: u8,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules { unused: Duration::from_secs(7 * 24 * 3600), above: 85, below: 75 }
    }
}

/// Between two looks at the disk, and between two at the images' ages, at most.
const DISK: Duration = Duration::from_secs(60);
const AGE: Duration = Duration::from_secs(3600);
/// What was used so recently stays on a full disk too: whoever asked for it is about to use it.
const FRESH_MS: u64 = 10 * 60_000;

/// What has gone on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// This node's name.
    pub node: String,
    /// Names, or digests of those without.
    pub images: Vec<String>,
    pub freed_bytes: u64,
    pub trouble: Option<String>,
}

/// Looks after the disk. For as long as the agent runs.
pub async fn tidy(images: Images, rules: Rules, kept_logs: PathBuf, left: Left) {
    let every = (rules.unused / 10).clamp(Duration::from_secs(1), AGE);
    let mut looked = Instant::now();
    let mut full = false;
    loop {
        sleep(every.min(DISK)).await;
        if images.0.cell.state().cell.is_none() {
            // What the cell's jobs use is not known yet.
            continue;
        }
        if looked.elapsed() >= every {
            looked = Instant::now();
            images.by_age(&rules, &kept_logs, &left).await;
        }
        full = images.by_pressure(&rules, full, &kept_logs, &left).await;
    }
}

impl Images {
    /// Takes away, on every node that answers, the images that no job has used for so long.
    pub async fn prune(&self, unused_ms: u64) -> (Vec<Pruned>, Vec<String>) {
        let others = self.ask_each(self.others(), ImageQuestion::Prune { unused_ms });
        let (here, others) = tokio::join!(self.prune_here(unused_ms), others);
        let (mut all, mut missing) = (vec![here], Vec::new());
        for (node, answer) in others {
            match answer {
                Ok(ImageTold::Collected { images, freed_bytes, trouble }) => {
                    all.push(Pruned { node: self.name(node), images, freed_bytes, trouble });
                }
                Ok(_) => missing.push(self.name(node)),
                Err(error) => {
                    tracing::warn!("images are not collected on {}: {error}", self.name(node));
                    missing.push(self.name(node));
                }
            }
        }
        all.sort_by(|a, b| a.node.cmp(&b.node));
        missing.sort();
        (all, missing)
    }

    pub(super) async fn prune_told(&self, unused_ms: u64) -> ImageTold {
        let Pruned { images, freed_bytes, trouble, .. } = self.prune_here(unused_ms).await;
        ImageTold::Collected { images, freed_bytes, trouble }
    }

    async fn prune_here(&self, unused_ms: u64) -> Pruned {
        let until = clock::now().wall_ms.saturating_sub(unused_ms);
        let pruned = self.collect(move |held| held.used_ms <= until, unused_ms == 0).await;
        let node = self.name(self.0.cell.me());
        let pruned = match pruned {
            Ok(pruned) => Pruned { node, ..pruned },
            Err(refusal) => Pruned { node, trouble: Some(refusal.message), ..Pruned::default() },
        };
        self.tell_pruned(&pruned, "at a user's word");
        pruned
    }

    async fn by_age(&self, rules: &Rules, kept_logs: &Path, left: &Left) {
        // It runs now, so that it was used until now.
        self.note_use().await;
        let unused = u64::try_from(rules.unused.as_millis()).unwrap_or(u64::MAX);
        let until = clock::now().wall_ms.saturating_sub(unused);
        match self.collect(move |held| held.used_ms <= until, false).await {
            Ok(pruned) => self.tell_pruned(&pruned, "which no job has used for long"),
            Err(refusal) => tracing::warn!("what nobody uses stays: {refusal}"),
        }
        let kept = kept_logs.to_path_buf();
        if let Ok(Err(error)) = spawn_blocking(move || logs::tidy(&kept, logs::KEPT_FOR)).await {
            tracing::warn!("old logs stay: {error}");
        }
        let left = left.clone();
        if let Ok(Err(error)) = spawn_blocking(move || left.tidy(left::KEPT_FOR)).await {
            tracing::warn!("what containers left stays: {error}");
        }
    }

    /// Whether the disk is still too full.
    async fn by_pressure(&self, rules: &Rules, was_full: bool, kept_logs: &Path, left: &Left) -> bool {
        let root = self.0.store.root().to_path_buf();
        let used = |root: PathBuf| async move { spawn_blocking(move || percent(&root)).await.ok().flatten() };
        let Some(before) = used(root.clone()).await.filter(|used| *used > rules.above) else { return false };
        self.note_use().await;
        let below = rules.below;
        let enough = move |root: &Path| percent(root).is_none_or(|used| used <= below);
        let gone = self.free_until(enough, kept_logs, left, Duration::from_millis(FRESH_MS)).await;
        let now = used(root).await.unwrap_or(before);
        self.tell_pruned(&gone, &format!("since the disk was {before} % full; now {now} %"));
        if now > rules.above && !was_full {
            let text = format!(
                "the disk of {} is {now} % full, and nothing is left there that nobody uses: make room",
                self.0.store.root().display()
            );
            tracing::warn!("{text}");
            self.0.journal.node("disk_full", text);
        }
        now > rules.above
    }

    /// Makes room now, since without it somebody has to end: what nobody uses goes, and what ended runs have left.
    pub(crate) async fn make_room(
        &self,
        kept_logs: &Path,
        left: &Left,
        enough: impl Fn() -> bool + Send + Sync,
    ) {
        self.note_use().await;
        let gone = self.free_until(|_| enough(), kept_logs, left, Duration::ZERO).await;
        self.tell_pruned(&gone, "since the disk is short");
    }

    /// Takes away what nobody uses, the oldest first, then what runs have left that ended so long ago, until there is enough.
    async fn free_until(
        &self,
        enough: impl Fn(&Path) -> bool + Send + Sync,
        kept_logs: &Path,
        left: &Left,
        age: Duration,
    ) -> Pruned {
        let root = self.0.store.root().to_path_buf();
        let mut gone = Pruned::default();
        // What the cell's jobs use is not known at first.
        while self.0.cell.state().cell.is_some() && !enough(&root) {
            match self.collect_oldest().await {
                Ok(Some(one)) => {
                    gone.images.extend(one.images);
                    gone.freed_bytes += one.freed_bytes;
                }
                Ok(None) => break,
                Err(refusal) => {
                    tracing::warn!("the disk is full, and what nobody uses stays: {refusal}");
                    break;
                }
            }
        }
        if !enough(&root) {
            let (kept, left) = (kept_logs.to_path_buf(), left.clone());
            let _ = spawn_blocking(move || (left.tidy(age).is_ok(), logs::tidy(&kept, age).is_ok())).await;
        }
        gone
    }

    /// The image that was not used for longest, if there is one that may go.
    async fn collect_oldest(&self) -> Result<Option<Pruned>, Refusal> {
        let in_use = self.in_use().await?;
        let fresh = clock::now().wall_ms.saturating_sub(FRESH_MS);
        self.blocking(move |store| {
            let mut held = candidates(store, &in_use)?;
            held.retain(|held| held.used_ms < fresh);
            held.sort_by_key(|held| held.used_ms);
            held.truncate(1);
            let (went, collected) = store.collect_images(&held, &in_use)?;
            let bytes = collected.bytes() + store.collect_partial(false)?;
            Ok((!went.is_empty() || bytes > 0).then(|| pruned(&went, bytes)))
        })
        .await
    }

    async fn collect(
        &self,
        may_go: impl Fn(&Held) -> bool + Send + 'static,
        all_partial: bool,
    ) -> Result<Pruned, Refusal> {
        let in_use = self.in_use().await?;
        self.blocking(move |store| {
            let mut held = candidates(store, &in_use)?;
            held.retain(may_go);
            let (went, collected) = store.collect_images(&held, &in_use)?;
            Ok(pruned(&went, collected.bytes() + store.collect_partial(all_partial)?))
        })
        .await
    }

    /// Notes of what is in use that it is.
    async fn note_use(&self) {
        let Ok(in_use) = self.in_use().await else { return };
        let noted = self.blocking(move |store| {
            in_use.iter().for_each(|digest| store.touch(digest));
            Ok(())
        });
        drop(noted.await);
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, content::Error> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = self.0.store.clone();
        match spawn_blocking(move || work(&store)).await {
            Ok(done) => done.map_err(|error| Refusal::new("invalid", error, None)),
            Err(_) => Err(Refusal::new("invalid", "the agent is ending", None)),
        }
    }

    fn tell_pruned(&self, pruned: &Pruned, why: &str) {
        if pruned.images.is_empty() && pruned.freed_bytes == 0 {
            return;
        }
        let what = match pruned.images.as_slice() {
            [] => "what was left of images".to_string(),
            images => listed(images),
        };
        let text = format!("removed {what}, {why}; freed {}", bytes(pruned.freed_bytes));
        self.0.journal.node("images_collected", text);
        self.touch();
    }
}

/// What no job and no run uses, and no start makes again by itself.
fn candidates(store: &Store, in_use: &[Digest]) -> Result<Vec<Held>, content::Error> {
    let in_use: BTreeSet<&Digest> = in_use.iter().collect();
    let held = store.held()?.into_iter();
    Ok(held.filter(|held| !held.made && !in_use.contains(&held.digest)).collect())
}

fn pruned(went: &[Held], freed_bytes: u64) -> Pruned {
    let shown = |held: &Held| match held.names.as_slice() {
        [] => vec![held.digest.to_string()],
        names => names.iter().map(ToString::to_string).collect(),
    };
    let images = went.iter().flat_map(shown).collect();
    Pruned { images, freed_bytes, ..Pruned::default() }
}

/// How full the file system is, as `df` counts: of what is not root's alone.
fn percent(path: &Path) -> Option<u8> {
    let stat = nix::sys::statvfs::statvfs(path).ok()?;
    let used = stat.blocks().saturating_sub(stat.blocks_free());
    let all = used + stat.blocks_available();
    u8::try_from((used * 100).checked_div(all)?).ok()
}
