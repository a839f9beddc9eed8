//! What a node lacks comes from the others; names become digests.

use agent::images::{FetchError, Phase};
use oci::digest::Digest;

use crate::{
    image::load,
    node::{cell, is_over},
};

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_an_image_have_it_come_once_from_all_who_have_it() {
    let nodes = cell(&["h1", "h2", "h3"]).await;
    let layers = [300_000, 2_000_000, 700_000, 70_000];
    let image = load(&nodes[1], "web:1", 1, &layers);
    assert_eq!(load(&nodes[2], "web:1", 1, &layers), image);
    let watched: Vec<_> = (0..20).map(|_| nodes[0].images.fetch("web:1", image)).collect();
    for mut phase in watched {
        let end = phase.wait_for(is_over).await.unwrap().clone();
        let Phase::Done(fetched) = end else { panic!("{end:?}") };
        assert_eq!(fetched.from, ["h2", "h3"], "several give at once");
        assert!(fetched.bytes > 3_070_000, "{fetched}");
    }
    assert!(nodes[0].whole(&image));
    assert_eq!(nodes[0].images.here().await, [image.to_string()].into());
    let mut given = nodes[1].times_given();
    given.extend(nodes[2].times_given());
    assert_eq!(given, [1; 6], "manifest, config and four layers");
    // Nothing is left to do.
    let (_, end) = nodes[0].fetch_until("web:1", image, is_over).await;
    assert_eq!(end, Phase::Done(Default::default()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_here_does_not_come_again() {
    let nodes = cell(&["h1", "h2"]).await;
    load(&nodes[0], "base:1", 1, &[500_000]);
    let image = load(&nodes[1], "web:1", 1, &[500_000, 100_000]);
    let (_, end) = nodes[0].fetch_until("web:1", image, is_over).await;
    assert!(matches!(end, Phase::Done(_)), "{end:?}");
    assert_eq!(nodes[1].times_given(), [1; 3], "manifest, config and the other layer");
    assert!(nodes[0].whole(&image));
}

/// The reason says whom it asked and what to do; as soon as somebody has it, it comes.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_waited_for() {
    let nodes = cell(&["h1", "h2", "h3"]).await;
    // The digest of an image that will be there later.
    let elsewhere = cell(&["h1"]).await;
    let image = load(&elsewhere[0], "web:1", 1, &[200_000]);
    let waiting = |phase: &Phase| matches!(phase, Phase::Waiting(_));
    let (mut phase, seen) = nodes[0].fetch_until("web:1", image, waiting).await;
    let Phase::Waiting(why) = seen else { panic!("{seen:?}") };
    let text = format!(
        "image web:1 is on no node that answers: manifest {image} was asked for from h2 and h3; load it on any node: \
         covey image load FILE --name web:1"
    );
    assert_eq!(why.to_string(), text);
    assert_eq!(load(&nodes[2], "web:1", 1, &[200_000]), image);
    let end = phase.wait_for(is_over).await.unwrap().clone();
    assert!(matches!(end, Phase::Done(_)), "{end:?}");
    assert!(nodes[0].whole(&image));
}

/// A manifest whose layer is nowhere: named, and nothing of the rest is fetched for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_nobody_has_is_named_and_nothing_stays() {
    let nodes = cell(&["h1", "h2"]).await;
    let image = load(&nodes[1], "web:1", 1, &[200_000, 100_000]);
    let store = nodes[1].images.store();
    let lost = store.image(&image).unwrap().layers[1];
    std::fs::remove_file(store.root().join("blobs/sha256").join(lost.hex())).unwrap();
    let waiting = |phase: &Phase| matches!(phase, Phase::Waiting(_));
    let (phase, seen) = nodes[0].fetch_until("web:1", image, waiting).await;
    let Phase::Waiting(FetchError::Nobody { what: "layer", digest, .. }) = seen else { panic!("{seen:?}") };
    assert_eq!(digest, lost);
    // Whoever waited does not any more: the fetch ends, and nothing of it is left.
    drop(phase);
    nodes[0].is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_said_to_be_none() {
    let nodes = cell(&["h1", "h2"]).await;
    let image = load(&nodes[1], "web:1", 1, &[200_000]);
    let layer = nodes[1].images.store().image(&image).unwrap().layers[0];
    let (phase, end) = nodes[0].fetch_until("web:1", layer, is_over).await;
    assert!(matches!(end, Phase::Failed(FetchError::NotAnImage { .. })), "{end:?}");
    drop(phase);
    nodes[0].is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_means_the_same_through_any_node() {
    let nodes = cell(&["h1", "h2", "h3"]).await;
    let refusal = nodes[0].images.resolve("web:1").await.unwrap_err();
    assert_eq!(refusal.code, "not_found");
    assert_eq!(refusal.message, "no node has an image named web:1: neither this one nor h2 and h3");
    let old = load(&nodes[1], "web:1", 1, &[100_000]);
    assert_eq!(nodes[0].images.resolve("web:1").await.unwrap(), old);
    // Later, and by another node: the newest counts.
    while agent::clock::now().wall_ms <= nodes[1].set_ms("web:1") {
        tokio::task::yield_now().await;
    }
    let new = load(&nodes[2], "web:1", 2, &[100_000]);
    assert_eq!(nodes[0].images.resolve("web:1").await.unwrap(), new);
    assert_eq!(nodes[0].images.resolve(&format!("web@{old}")).await.unwrap(), old);
    let unknown = Digest::of(b"unknown");
    let refusal = nodes[0].images.resolve(&format!("web@{unknown}")).await.unwrap_err();
    assert_eq!(refusal.message, format!("no node has {unknown}: neither this one nor h2 and h3"));
}
