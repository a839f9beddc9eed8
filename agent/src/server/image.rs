//! Requests about images: the node's content store.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use gossip::wire::Reply;
use oci::{digest::Digest, reference::Reference};
use placement::ledger::Refusal;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Out, Services, Stopped, invalid};
use crate::{api, clock};

/// `covey image load`: the archive is read here, with progress.
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
    let store = services.images.clone();
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
        items.push(document(services, &image.reference, &image.digest));
    }
    out.item(api::list(clock::now(), items)).await
}

/// `covey image ls`.
pub(super) async fn list(services: &Services) -> Result<Value, Refusal> {
    let listing = services.images.list().map_err(|e| invalid(e.to_string()))?;
    for error in &listing.unreadable {
        tracing::warn!("an image's name cannot be read: {error}");
    }
    let items =
        listing.names.iter().map(|named| document(services, &named.reference, &named.digest)).collect();
    Ok(api::list(clock::now(), items))
}

/// `covey image rm`: the name goes; its content too unless another name or a task uses it.
pub(super) async fn remove(services: &Services, reference: String) -> Result<Value, Refusal> {
    let name = Reference::from_str(&reference).map_err(|e| invalid(e.to_string()))?;
    let used: Vec<String> = services
        .node
        .read(|core| core.reports().into_iter().map(|r| r.digest).collect())
        .await
        .ok_or_else(|| invalid("the node is ending".to_string()))?;
    let in_use: Vec<Digest> = used.iter().filter_map(|d| d.parse().ok()).collect();
    let store = Arc::clone(&services.images);
    let shown = name.to_string();
    let removed = tokio::task::spawn_blocking(move || {
        let digest = store.remove(&name)?;
        store.collect(&in_use)?;
        Ok::<_, oci::content::Error>(digest)
    });
    let digest =
        removed.await.map_err(|_| invalid("the removal broke off".to_string()))?.map_err(|e| Refusal {
            code: "not_found".into(),
            message: e.to_string(),
            hint: Some("covey image ls shows what there is".into()),
        })?;
    services.journal.node("image_removed", format!("removed {shown} ({digest})"));
    Ok(json!({"reference": shown, "digest": digest.to_string(), "changed": true}))
}

fn document(services: &Services, reference: &Reference, digest: &Digest) -> Value {
    let image = services.images.image(digest).ok();
    json!({
        "reference": reference.to_string(),
        "digest": digest.to_string(),
        "size_bytes": image.as_ref().map(|i| i.size),
        "layers": image.as_ref().map(|i| i.layers.len()),
    })
}
