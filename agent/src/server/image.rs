//! Requests about the cell's images.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use gossip::wire::{
    Reply,
    image::{ImageName, Login},
};
use oci::{layout::LoadedImage, reference::Reference};
use placement::{ids::NodeId, ledger::Refusal};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};

use super::{Out, Services, Stopped, invalid};
use crate::{
    api, clock,
    images::{Kept, LoggedIn},
};

/// A client that hears nothing for long takes this node for dead.
const ALIVE: Duration = Duration::from_secs(3);

/// `covey image load`: the archive is read here, then other nodes copy it; both with progress.
pub(super) async fn load(
    services: &Services,
    path: String,
    name: Option<String>,
    out: &mut Out,
) -> Result<(), Stopped> {
    let path = PathBuf::from(path);
    if !path.is_absolute() {
        return Err(
            invalid(format!("cannot load {}: the node needs an absolute path", path.display())).into()
        );
    }
    let name = name.as_deref().map(Reference::from_str).transpose().map_err(|e| invalid(e.to_string()))?;
    let store = services.images.store().clone();
    let (tell, mut told) = mpsc::channel(1);
    let what = format!("loading {}", path.display());
    let work = tokio::task::spawn_blocking(move || {
        // A step of progress that nobody waits for is left out; loading never waits for the client.
        oci::layout::load(&store, &path, name.as_ref(), &mut |done, total| {
            let _ = tell.try_send((done, total));
        })
    });
    while let Some((done, total)) = told.recv().await {
        out.send(&Reply::Progress { what: what.clone(), done, total }).await?;
    }
    let loaded = match work.await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(error)) => return Err(invalid(error.to_string()).into()),
        Err(_) => return Err(invalid("the loader ended without an answer".to_string()).into()),
    };
    let mut items = Vec::new();
    for image in loaded {
        services.journal.node("image_loaded", format!("loaded {} ({})", image.reference, image.digest));
        let kept = spread(services, &image, out).await?;
        let mut item = document(&kept.name, &kept.nodes);
        item["trouble"] = json!(kept.trouble);
        items.push(item);
    }
    out.item(api::list(clock::now(), items)).await
}

/// `covey image pull`: from the registry, or from other nodes what they have of it; then others copy it.
pub(super) async fn pull(services: &Services, reference: String, out: &mut Out) -> Result<(), Stopped> {
    let (tell, mut told) = mpsc::channel(1);
    let mut pulling = std::pin::pin!(services.images.pull_named(&reference, tell));
    let mut last = (format!("pulling {reference}"), 0, 0);
    let pulled = loop {
        tokio::select! {
            pulled = &mut pulling => break pulled?,
            Some(moved) = told.recv() => last = moved,
            () = sleep(ALIVE) => {}
        }
        let (what, done, total) = last.clone();
        out.send(&Reply::Progress { what, done, total }).await?;
    };
    let mut item = match pulled.name {
        Some(name) => {
            let kept = keep_copies(services, name, out).await?;
            let mut item = document(&kept.name, &kept.nodes);
            item["trouble"] = json!(kept.trouble);
            item
        }
        None => {
            let here = services.images.name(services.cell.me());
            let digest = pulled.digest.to_string();
            json!({"reference": reference, "digest": digest, "size_bytes": null, "layers": null, "nodes": [here]})
        }
    };
    item["pulled_bytes"] = json!(pulled.fetched.bytes);
    item["from"] = json!(pulled.fetched.from);
    out.item(api::list(clock::now(), vec![item])).await
}

/// Has other nodes keep copies, and tells how far they are.
async fn spread(services: &Services, image: &LoadedImage, out: &mut Out) -> Result<Kept, Stopped> {
    let name = services.images.told(&image.reference).map_err(|e| invalid(e.to_string()))?;
    let name = name.ok_or_else(|| invalid(format!("{} was removed while it was loaded", image.reference)))?;
    keep_copies(services, name, out).await
}

async fn keep_copies(services: &Services, name: ImageName, out: &mut Out) -> Result<Kept, Stopped> {
    let reference = name.reference.clone();
    let (tell, mut told) = mpsc::channel(1);
    let mut spreading = std::pin::pin!(services.images.spread(name, tell));
    let mut steps = BTreeMap::<NodeId, (u64, u64)>::new();
    loop {
        tokio::select! {
            kept = &mut spreading => return Ok(kept),
            Some((node, done, total)) = told.recv() => {
                steps.insert(node, (done, total));
                let nodes: Vec<String> = steps.keys().map(|node| services.images.name(*node)).collect();
                let what = format!("copying {reference} to {}", nodes.join(" and "));
                let (done, total) = steps.values().fold((0, 0), |sum, step| (sum.0 + step.0, sum.1 + step.1));
                out.send(&Reply::Progress { what, done, total }).await?;
            }
        }
    }
}

/// `covey image ls`: the cell's, merged.
pub(super) async fn list(services: &Services) -> Result<Value, Refusal> {
    let all = services.images.list().await?;
    let items: Vec<Value> = all
        .names
        .into_iter()
        .map(|row| {
            let nodes: BTreeSet<String> = row.nodes.iter().map(|node| services.images.name(*node)).collect();
            document(&row.name, &nodes.into_iter().collect::<Vec<_>>())
        })
        .collect();
    // No placer is asked: who is missing is all that there is to say.
    Ok(api::answer(clock::now(), false, &all.missing, items))
}

/// `covey image rm`: the name goes, everywhere; content too unless another name, a task or a job uses it.
pub(super) async fn remove(services: &Services, reference: String) -> Result<Value, Refusal> {
    let removed = services.images.remove(&reference).await?;
    Ok(json!({
        "reference": reference,
        "digest": removed.digest,
        "changed": true,
        "nodes": removed.nodes,
        "missing": removed.missing,
    }))
}

/// `covey image prune`: on all nodes, what no job uses.
pub(super) async fn prune(services: &Services, unused_ms: u64) -> Value {
    let (all, missing) = services.images.prune(unused_ms).await;
    let freed: u64 = all.iter().map(|pruned| pruned.freed_bytes).sum();
    let images: BTreeSet<&String> = all.iter().flat_map(|pruned| &pruned.images).collect();
    let items: Vec<Value> = all
        .iter()
        .map(|one| {
            json!({
                "node": one.node,
                "images": one.images,
                "freed_bytes": one.freed_bytes,
                "trouble": one.trouble,
            })
        })
        .collect();
    let changed = freed > 0 || !images.is_empty();
    let mut answer = api::answer(clock::now(), false, &missing, items);
    answer["changed"] = json!(changed);
    answer["freed_bytes"] = json!(freed);
    answer["images"] = json!(images);
    answer
}

/// `covey image login`: tried, and given to all nodes.
pub(super) async fn login(services: &Services, registry: &str, login: Login) -> Result<Value, Refusal> {
    Ok(logged_in(services.images.login(registry, login).await?))
}

/// `covey image logout`: taken from all nodes.
pub(super) async fn logout(services: &Services, registry: &str) -> Result<Value, Refusal> {
    Ok(logged_in(services.images.logout(registry).await?))
}

fn logged_in(done: LoggedIn) -> Value {
    json!({
        "registry": done.registry,
        "user": done.user,
        "changed": done.changed,
        "nodes": done.nodes,
        "missing": done.missing,
    })
}

fn document(name: &ImageName, nodes: &[String]) -> Value {
    json!({
        "reference": name.reference,
        "digest": name.digest,
        "size_bytes": name.size_bytes,
        "layers": name.layers,
        "nodes": nodes,
    })
}
