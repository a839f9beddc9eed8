//! What is loaded is kept on three nodes, whoever goes; what is removed is removed everywhere.

use std::collections::BTreeSet;

use agent::images::{Kept, keep};
use oci::digest::Digest;
use tokio::sync::mpsc;

use crate::{
    image::load,
    node::{Node, PATIENCE, cell},
};

async fn spread(node: &Node, name: &str) -> Kept {
    let told = node.images.told(&name.parse().unwrap()).unwrap().unwrap();
    node.images.spread(told, mpsc::channel(1).0).await
}

/// Waits until so many of the nodes have the name.
async fn held_by(nodes: &[Node], name: &str, count: usize) {
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let have: Vec<&str> =
            nodes.iter().filter(|n| n.names().contains(&name.to_string())).map(|n| n.name.as_str()).collect();
        if have.len() == count {
            return;
        }
        assert!(tokio::time::Instant::now() < until, "{name} is on {have:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn digest_of(node: &Node, name: &str) -> Option<Digest> {
    let named = node.images.store().named(&name.parse().unwrap()).unwrap();
    named.map(|named| named.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_is_kept_on_three_nodes_in_different_racks() {
    let nodes = cell(&["h1/a", "h2/a", "h3/a", "h4/b", "h5/c"]).await;
    let image = load(&nodes[0], "web:1", 1, &[400_000, 300_000]);
    let kept = spread(&nodes[0], "web:1").await;
    assert_eq!(
        (kept.nodes.as_slice(), kept.trouble.len()),
        (["h1", "h4", "h5"].map(String::from).as_slice(), 0)
    );
    for node in [&nodes[3], &nodes[4]] {
        assert!(node.whole(&image), "{}", node.name);
        assert_eq!(node.set_ms("web:1"), nodes[0].set_ms("web:1"), "the time is that of the load");
        let (events, _) = node.journal.read();
        assert!(events.iter().any(|event| event.kind == "image_copied"), "{}", node.name);
    }
    // Through any node the list is the same, and says who has it.
    for node in &nodes {
        let all = node.images.list().await.unwrap();
        assert_eq!((all.names.len(), all.missing.len()), (1, 0));
        let holders: BTreeSet<_> = all.names[0].nodes.iter().copied().collect();
        assert_eq!(holders, BTreeSet::from([nodes[0].id, nodes[3].id, nodes[4].id]));
        assert_eq!(all.names[0].name.digest, image.to_string());
        assert_eq!(all.names[0].name.layers, Some(2));
    }
    // Removed through a node that has none.
    let removed = nodes[1].images.remove("web:1").await.unwrap();
    assert_eq!(removed.nodes, ["h1", "h4", "h5"]);
    for node in &nodes {
        node.is_empty().await;
    }
    let refusal = nodes[1].images.remove("web:1").await.err().unwrap();
    assert_eq!(refusal.code, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_cell_has_fewer_copies_and_is_content() {
    let nodes = cell(&["h1", "h2"]).await;
    let image = load(&nodes[0], "web:1", 1, &[100_000]);
    let kept = spread(&nodes[0], "web:1").await;
    assert_eq!((kept.nodes, kept.trouble), (vec!["h1".to_string(), "h2".to_string()], vec![]));
    assert!(nodes[1].whole(&image));
}

/// One that cannot keep a copy is replaced by one that can.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_elsewhere_costs_no_copy() {
    let nodes = cell(&["h1/a", "h2/b", "h3/c", "h4/a"]).await;
    load(&nodes[0], "web:1", 1, &[100_000]);
    // Nothing can be written there any more.
    std::fs::remove_dir_all(nodes[1].images.store().root().join("tmp")).unwrap();
    let kept = spread(&nodes[0], "web:1").await;
    assert_eq!(kept.nodes, ["h1", "h3", "h4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_lost_is_made_good() {
    let mut nodes = cell(&["h1", "h2", "h3", "h4", "h5"]).await;
    load(&nodes[0], "web:1", 1, &[200_000]);
    spread(&nodes[0], "web:1").await;
    let keepers: Vec<_> = nodes.iter().map(|node| tokio::spawn(keep(node.images.clone()))).collect();
    held_by(&nodes, "web:1", 3).await;
    // One of those that have it, and not the one that it was loaded on, goes without a word.
    let lost = nodes.iter().skip(1).position(|node| !node.names().is_empty()).unwrap() + 1;
    keepers[lost].abort();
    drop(nodes.remove(lost));
    held_by(&nodes, "web:1", 3).await;
    // And then that one.
    keepers[0].abort();
    drop(nodes.remove(0));
    held_by(&nodes, "web:1", 3).await;
    let copies = nodes.iter().filter(|node| !node.names().is_empty());
    let digests: BTreeSet<_> = copies.map(|node| digest_of(node, "web:1").unwrap()).collect();
    assert_eq!(digests.len(), 1);
}

/// A name that is given to another image means that one everywhere, also where the load was not heard of.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_image_of_the_name_gives_way() {
    let nodes = cell(&["h1", "h2", "h3", "h4"]).await;
    let old = load(&nodes[0], "web:1", 1, &[100_000]);
    spread(&nodes[0], "web:1").await;
    while agent::clock::now().wall_ms <= nodes[0].set_ms("web:1") {
        tokio::task::yield_now().await;
    }
    let new = load(&nodes[3], "web:1", 2, &[100_000]);
    assert_ne!(old, new);
    // Nobody is told, as if all had been away: their own looks find it out.
    let keepers: Vec<_> = nodes.iter().map(|node| tokio::spawn(keep(node.images.clone()))).collect();
    let until = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen: Vec<_> = nodes.iter().filter_map(|node| digest_of(node, "web:1")).collect();
        if seen == vec![new; 3] {
            break;
        }
        assert!(tokio::time::Instant::now() < until, "{seen:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    keepers.iter().for_each(tokio::task::JoinHandle::abort);
    for node in &nodes {
        assert_eq!(node.images.resolve("web:1").await.unwrap(), new);
    }
}
