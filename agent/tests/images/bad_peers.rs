//! Peers that send something else, too little, nothing more, or go.

use std::time::Duration;

use agent::images::{FetchError, Phase};
use oci::digest::Digest;

use crate::{
    image::load,
    node::{Gives, Node, PATIENCE, cell, is_over},
};

const LAYERS: [usize; 3] = [900_000, 800_000, 700_000];

/// h1 lacks the image; h2 gives as told, h3 well.
async fn one_bad(gives: Gives) -> (Vec<Node>, Digest) {
    let nodes = cell(&["h1", "h2", "h3"]).await;
    let image = load(&nodes[1], "web:1", 1, &LAYERS);
    load(&nodes[2], "web:1", 1, &LAYERS);
    nodes[1].gives(gives);
    (nodes, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_others_make_up_for_one_that_fails() {
    let ways = [
        Gives::Wrong,
        Gives::Short(0),
        Gives::Short(300_000),
        Gives::Stuck(0),
        Gives::Stuck(300_000),
        Gives::Gone(300_000),
    ];
    for gives in ways {
        let (nodes, image) = one_bad(gives).await;
        let (_phase, end) = nodes[0].fetch_until("web:1", image, is_over).await;
        let Phase::Done(fetched) = end else { panic!("{gives:?}: {end:?}") };
        assert!(fetched.from.contains(&"h3".to_string()), "{gives:?}: {fetched}");
        assert!(nodes[0].whole(&image), "{gives:?}");
        assert!(nodes[0].content().iter().all(|file| !file.starts_with("tmp/")), "{gives:?}");
    }
}

/// Of two that take turns one is wrong: each then gives the whole, until it is known which; the other may break off all
/// the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_two_givers_that_is_wrong_is_had_from_one() {
    let (nodes, image) = one_bad(Gives::Wrong).await;
    // It gives what it is asked for in pieces: so others come in.
    nodes[2].gives(Gives::Short(500_000));
    let (_phase, end) = nodes[0].fetch_until("web:1", image, is_over).await;
    let Phase::Done(fetched) = end else { panic!("{end:?}") };
    assert!(fetched.from.contains(&"h3".to_string()), "{fetched}");
    assert!(nodes[0].whole(&image));
}

/// One that gives a part each time: what has come need not come again.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_where_it_broke() {
    let nodes = cell(&["h1", "h2"]).await;
    let image = load(&nodes[1], "web:1", 1, &[900_000]);
    nodes[1].gives(Gives::Short(400_000));
    let (_phase, end) = nodes[0].fetch_until("web:1", image, is_over).await;
    let Phase::Done(fetched) = end else { panic!("{end:?}") };
    let size = nodes[1].images.store().image(&image).unwrap().size;
    assert_eq!(fetched.bytes, size, "no byte twice");
    assert!(nodes[0].whole(&image));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_fails_half_way_leaves_nothing_and_is_named() {
    for gives in [Gives::Wrong, Gives::Short(0), Gives::Stuck(0)] {
        let nodes = cell(&["h1", "h2"]).await;
        let image = load(&nodes[1], "web:1", 1, &LAYERS);
        nodes[1].gives(gives);
        let waiting = |phase: &Phase| matches!(phase, Phase::Waiting(_));
        let (phase, seen) = nodes[0].fetch_until("web:1", image, waiting).await;
        let Phase::Waiting(FetchError::Broken { what: "layer", digest, why, .. }) = seen else {
            panic!("{gives:?}: {seen:?}")
        };
        let layers = nodes[1].images.store().image(&image).unwrap().layers;
        assert!(layers.contains(&digest), "{gives:?}");
        assert!(why[0].starts_with("h2: "), "{gives:?}: {why:?}");
        assert!(!nodes[0].images.here().await.contains(&image.to_string()));
        drop(phase);
        nodes[0].is_empty().await;
    }
}

/// The only one that has it dies in the middle, and another comes to have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_is_not_missed_once_another_has_it() {
    let nodes = cell(&["h1", "h2", "h3"]).await;
    let image = load(&nodes[1], "web:1", 1, &LAYERS);
    nodes[1].gives(Gives::Gone(200_000));
    let waiting = |phase: &Phase| matches!(phase, Phase::Waiting(_));
    let (mut phase, _) = nodes[0].fetch_until("web:1", image, waiting).await;
    load(&nodes[2], "web:1", 1, &LAYERS);
    let end = tokio::time::timeout(PATIENCE, phase.wait_for(is_over)).await.unwrap().unwrap().clone();
    assert!(matches!(end, Phase::Done(_)), "{end:?}");
    assert!(nodes[0].whole(&image));
}

impl Node {
    /// Waits until its store is as it was when it was new.
    pub(crate) async fn is_empty(&self) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while !self.content().is_empty() {
            assert!(tokio::time::Instant::now() < until, "{} still has {:?}", self.name, self.content());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn set_ms(&self, name: &str) -> u64 {
        self.images.store().named(&name.parse().unwrap()).unwrap().unwrap().set_ms
    }
}
