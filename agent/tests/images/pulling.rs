//! Images from a registry, which answers well or in every other way.

use std::time::Duration;

use agent::images::{Phase, registry::Settings};
use gossip::wire::{Secret, image::Login};
use oci::digest::Digest;
use serde_json::json;
use tokio::sync::mpsc;

use crate::{
    fake::{Answers, Fake},
    image::load,
    node::{Node, cell, cell_with, is_over},
};

const LAYERS: [usize; 2] = [3_000_000, 200_000];

/// A registry with `team/web:1`, its reference and its digest; and nodes that have nothing.
async fn one_image(names: &[&str]) -> (Fake, String, Digest, Vec<Node>) {
    let elsewhere = cell(&["elsewhere"]).await;
    let image = load(&elsewhere[0], "web:1", 1, &LAYERS);
    let fake = Fake::start().await;
    let name = fake.publish(elsewhere[0].images.store(), &image, "team/web", "1");
    (fake, name, image, cell(names).await)
}

async fn pull(node: &Node, name: &str) -> Result<agent::images::Pulled, placement::ledger::Refusal> {
    let (tell, _told) = mpsc::channel(1);
    node.images.pull_named(name, tell).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_named_and_told() {
    let (fake, name, image, nodes) = one_image(&["h1", "h2"]).await;
    assert_eq!(nodes[0].images.resolve(&name).await.unwrap(), image);
    let pulled = pull(&nodes[0], &name).await.unwrap();
    assert_eq!(pulled.digest, image);
    assert_eq!(pulled.name.unwrap().reference, name);
    assert_eq!(pulled.fetched.from, [format!("registry {}", fake.host)]);
    assert!(pulled.fetched.bytes > 3_200_000, "{}", pulled.fetched);
    assert!(nodes[0].whole(&image));
    assert_eq!(fake.layers().len(), 2);
    // The other one has it from the first, with the registry gone too.
    fake.answers(Answers::Status(500, ""));
    let (_, end) = nodes[1].fetch_until(&name, image, is_over).await;
    let Phase::Done(fetched) = end else { panic!("{end:?}") };
    assert_eq!(fetched.from, ["h1"]);
    assert_eq!(nodes[1].images.resolve(&name).await.unwrap(), image);
    let told: Vec<String> = nodes[0].journal.read().0.iter().map(|event| event.text.clone()).collect();
    assert!(
        told.iter().any(|text| text.starts_with(&format!("pulled {name} ({image}): 3.0 MiB"))),
        "{told:?}"
    );
}

/// Of two that want it at once, one brings it in.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_leaves_the_registry_once() {
    let (fake, name, image, nodes) = one_image(&["h1", "h2"]).await;
    fake.answers(Answers::Held);
    let moving = |phase: &Phase| matches!(phase, Phase::Fetching(moving) if moving.done > 1_000_000);
    let (mut first, _) = nodes[0].fetch_until(&name, image, moving).await;
    let mut second = nodes[1].images.fetch(&name, image);
    let asked = |phase: &Phase| matches!(phase, Phase::Fetching(moving) if moving.came >= 1);
    second.wait_for(asked).await.unwrap();
    fake.go();
    for phase in [&mut first, &mut second] {
        let end = phase.wait_for(is_over).await.unwrap().clone();
        assert!(matches!(end, Phase::Done(_)), "{end:?}");
    }
    assert!(nodes[1].whole(&image));
    let big = fake.layers().len();
    assert!((2..=3).contains(&big), "{big} requests: the small layer may come twice, the large one not");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_broke_off_goes_on_where_it_was() {
    for ranges in [true, false] {
        let (fake, name, image, nodes) = one_image(&["h1"]).await;
        fake.answers(Answers::Cut(2_000_000, 1, ranges));
        pull(&nodes[0], &name).await.unwrap();
        assert!(nodes[0].whole(&image));
        let mut asked = fake.layers();
        asked.sort();
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(asked[2].starts_with("bytes="), "{asked:?}");
    }
    // Again and again, until the pull gives up: the next pull goes on.
    let (fake, name, image, nodes) = one_image(&["h1"]).await;
    fake.answers(Answers::Cut(2_000_000, 1, true));
    let (phase, _) = nodes[0]
        .fetch_until(
            &name,
            image,
            |phase| matches!(phase, Phase::Fetching(moving) if moving.done > 1_500_000),
        )
        .await;
    fake.answers(Answers::Status(500, "no more"));
    drop(phase);
    fake.answers(Answers::Well);
    pull(&nodes[0], &name).await.unwrap();
    assert!(nodes[0].whole(&image));
    let asked = fake.layers();
    assert!(asked.iter().any(|range| range.starts_with("bytes=")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_thrown_away_and_asked_for_once_more() {
    let (fake, name, image, nodes) = one_image(&["h1"]).await;
    fake.answers(Answers::Wrong(1));
    pull(&nodes[0], &name).await.unwrap();
    assert!(nodes[0].whole(&image));

    let (fake, name, _, nodes) = one_image(&["h1"]).await;
    fake.answers(Answers::Wrong(100));
    let refusal = pull(&nodes[0], &name).await.map(|pulled| pulled.digest).unwrap_err();
    let wrong = format!("cannot be had: registry {} sent what does not match the digest", fake.host);
    assert!(refusal.message.starts_with("layer sha256:") && refusal.message.ends_with(&wrong), "{refusal}");
    nodes[0].is_empty().await;
    let partial = nodes[0].dir.path().join("content/partial");
    assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_no_says_what_and_why() {
    let (fake, name, _, nodes) = one_image(&["h1"]).await;
    let host = &fake.host;
    let none = format!("{host}/team/web:2");
    let refusal = pull(&nodes[0], &none).await.map(|_| ()).unwrap_err();
    assert_eq!(
        (refusal.code.as_str(), refusal.message),
        ("not_found", format!("registry {host} has no {none}"))
    );
    for (answers, code, wanted) in [
        (Answers::Status(401, ""), "denied", "to strangers, or has none of that name: covey image login"),
        (Answers::Status(403, "{}"), "denied", "to strangers"),
        (Answers::Status(404, "<html>"), "not_found", "has no"),
        (Answers::Status(429, ""), "unreachable", "too many requests"),
        (Answers::Status(500, "on\nfire"), "unreachable", "failed: HTTP status 500 onfire"),
        (Answers::Status(200, "{"), "invalid", "its manifest cannot be read"),
    ] {
        fake.answers(answers);
        let refusal = pull(&nodes[0], &name).await.map(|_| ()).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(wanted), "{refusal}");
        // For a job, with what the nodes say.
        let refusal = nodes[0].images.resolve(&name).await.unwrap_err();
        let begin = format!("no node has an image named {name}: this node has none; ");
        assert!(refusal.message.starts_with(&begin) && refusal.message.contains(wanted), "{refusal}");
    }
    let gone = pull(&nodes[0], "127.0.0.1:1/web:1").await.map(|_| ()).unwrap_err();
    let begin = "registry 127.0.0.1:1 cannot be reached (plain HTTP): ";
    assert!(gone.message.starts_with(begin) && gone.message.contains("Connection refused"), "{gone}");
    let nowhere = pull(&nodes[0], "web:1").await.map(|_| ()).unwrap_err();
    assert_eq!(nowhere.message, "web:1 leads to no registry");

    let hasty = Settings { patience: Duration::from_millis(100), ..Settings::named_only() };
    let hasty = cell_with(&["h1"], hasty).await;
    fake.answers(Answers::Not);
    let silent = pull(&hasty[0], &name).await.map(|_| ()).unwrap_err();
    assert!(silent.message.contains("did not answer within 0.1"), "{silent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_leads_to_the_variant_for_this_machine() {
    let (fake, _, image, nodes) = one_image(&["h1"]).await;
    let entry = |arch: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.to_string(), "size": 9,
            "platform": {"architecture": arch, "os": "linux"},
        })
    };
    let index = "application/vnd.oci.image.index.v1+json";
    let of = |entries| json!({"schemaVersion": 2, "mediaType": index, "manifests": entries}).to_string();
    fake.put_manifest("team/web", "all", index, of(vec![entry("s390x"), entry("amd64")]).as_bytes());
    fake.put_manifest("team/web", "others", index, of(vec![entry("s390x"), entry("arm64")]).as_bytes());
    let all = format!("{}/team/web:all", fake.host);
    assert_eq!(nodes[0].images.resolve(&all).await.unwrap(), image);
    let others = format!("{}/team/web:others", fake.host);
    let refusal = pull(&nodes[0], &others).await.map(|_| ()).unwrap_err();
    let text = format!(
        "image {others} cannot be run here: it has no variant for this machine (linux/amd64); there is linux/arm64, linux/s390x"
    );
    assert_eq!((refusal.code.as_str(), refusal.message), ("invalid", text));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_tried_given_to_all_and_never_shown() {
    let (fake, name, image, nodes) = one_image(&["h1", "h2"]).await;
    // ann:secret
    fake.answers(Answers::Basic("Basic YW5uOnNlY3JldA=="));
    let login = |password: &str| Login { user: "ann".into(), password: Secret(password.into()) };
    let refused = nodes[0].images.login(&fake.host, login("guessed")).await.map(|_| ()).unwrap_err();
    let text = format!(
        "registry {} refuses to user ann: look at the name and password (covey image login)",
        fake.host
    );
    assert_eq!((refused.code.as_str(), refused.message), ("denied", text));
    assert_eq!(nodes[1].images.resolve(&name).await.unwrap_err().code, "denied");
    let done = nodes[0].images.login(&fake.host, login("secret")).await.map_err(|e| e.to_string()).unwrap();
    assert_eq!((done.nodes, done.changed), (vec!["h1".to_string(), "h2".to_string()], true));
    assert_eq!(nodes[1].images.resolve(&name).await.unwrap(), image);
    pull(&nodes[1], &name).await.unwrap();
    for event in nodes.iter().flat_map(|node| node.journal.read().0) {
        assert!(!event.text.contains("secret"), "{}", event.text);
    }
    let done = nodes[1].images.logout(&fake.host).await.map_err(|e| e.to_string()).unwrap();
    assert_eq!(done.user.as_deref(), Some("ann"));
    assert_eq!(nodes[0].images.resolve(&format!("{name}1")).await.unwrap_err().code, "denied");
    let again = nodes[0].images.logout(&fake.host).await.map(|_| ()).unwrap_err();
    assert_eq!(again.code, "not_found");
    let none = nodes[0].images.login("no registry", login("secret")).await.map(|_| ()).unwrap_err();
    assert!(none.message.contains("is not a registry's host[:port]"), "{none}");
}
