//! What nobody uses goes, and nothing else.

use std::{
    fs::File,
    time::{Duration, UNIX_EPOCH},
};

use agent::{
    images::{Rules, tidy},
    left::Left,
};
use oci::digest::Digest;

use crate::{
    image::load,
    node::{Node, PATIENCE, cell},
};

/// As if it had been used last in 2001.
fn age(node: &Node, image: &Digest) {
    let path = node.images.store().root().join("blobs/sha256").join(image.hex());
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prune_takes_what_nobody_uses_on_all_nodes() {
    let nodes = cell(&["h1", "h2"]).await;
    let used = load(&nodes[0], "used:1", 1, &[100_000]);
    load(&nodes[0], "a:1", 2, &[100_000]);
    let old = load(&nodes[1], "b:1", 3, &[100_000]);
    age(&nodes[1], &old);
    let mut lease = nodes[0].images.store().lease();
    lease.hold(&used);
    let (pruned, missing) = nodes[0].images.prune(3_600_000).await;
    assert!(missing.is_empty());
    let shown: Vec<(&str, &[String])> =
        pruned.iter().map(|p| (p.node.as_str(), p.images.as_slice())).collect();
    assert_eq!(shown, [("h1", [].as_slice()), ("h2", ["b:1".to_string()].as_slice())]);
    let (pruned, _) = nodes[1].images.prune(0).await;
    assert_eq!(pruned[0].images, ["a:1"]);
    assert!(pruned[0].freed_bytes > 200_000, "the blob, and the layer unpacked: {}", pruned[0].freed_bytes);
    assert_eq!(nodes[0].names(), ["used:1"]);
    assert!(nodes[0].whole(&used), "somebody holds its manifest, and so all of it");
    drop(lease);
    let (pruned, _) = nodes[1].images.prune(0).await;
    assert_eq!(pruned[0].images, ["used:1"]);
    nodes[0].is_empty().await;
}

/// The event that a node wrote.
async fn collected(node: &Node) -> String {
    let (seen, mut live) = node.journal.read();
    if let Some(event) = seen.iter().find(|event| event.kind == "images_collected") {
        return event.text.clone();
    }
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let event = live.recv().await.unwrap();
            if event.kind == "images_collected" {
                return event.text.clone();
            }
        }
    });
    waited.await.expect("nothing was collected")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_used_for_long_goes_by_itself() {
    let nodes = cell(&["h1"]).await;
    let old = load(&nodes[0], "old:1", 1, &[100_000]);
    load(&nodes[0], "new:1", 2, &[100_000]);
    age(&nodes[0], &old);
    // The disk is never that full.
    let rules = Rules { unused: TEN, above: 100, below: 100 };
    let tidying = tokio::spawn(tidy(
        nodes[0].images.clone(),
        rules,
        nodes[0].dir.path().join("logs"),
        Left::new(nodes[0].dir.path().join("left")),
    ));
    let text = collected(&nodes[0]).await;
    assert!(text.starts_with("removed old:1, which no job has used for long; freed "), "{text}");
    tidying.abort();
}

/// Long enough for what is new to be it still, short enough for a look each second.
const TEN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_the_oldest_and_spares_what_is_fresh() {
    let nodes = cell(&["h1"]).await;
    let old = load(&nodes[0], "old:1", 1, &[100_000]);
    load(&nodes[0], "new:1", 2, &[100_000]);
    age(&nodes[0], &old);
    // Any disk is that full.
    let rules = Rules { unused: TEN, above: 0, below: 0 };
    let tidying = tokio::spawn(tidy(
        nodes[0].images.clone(),
        rules,
        nodes[0].dir.path().join("logs"),
        Left::new(nodes[0].dir.path().join("left")),
    ));
    collected(&nodes[0]).await;
    assert_eq!(nodes[0].names(), ["new:1"]);
    tidying.abort();
}
