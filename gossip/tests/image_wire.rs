//! What nodes ask each other about images, frozen. `UPDATE=1` rewrites the golden file.
#![allow(clippy::unwrap_used)]

mod golden;

use golden::{frozen, lines};
use gossip::wire::{
    Secret,
    ask::{Question, Told},
    image::{ComingBlob, Credential, HeldBlob, ImageName, ImageQuestion, ImageTold, Login},
};

fn name() -> ImageName {
    ImageName {
        reference: "web:1".into(),
        digest: format!("sha256:{}", "0a".repeat(32)),
        set_ms: 1_700_000_000_000,
        made: false,
        size_bytes: Some(41_943_040),
        layers: Some(3),
    }
}

fn questions() -> Vec<Question> {
    let digest = || name().digest;
    [
        ImageQuestion::Have { digests: vec![digest()] },
        ImageQuestion::Blob { digest: digest(), from: 262_144 },
        ImageQuestion::Names { reference: None },
        ImageQuestion::Names { reference: Some("web:1".into()) },
        ImageQuestion::Copy { name: name() },
        ImageQuestion::Remove { reference: "web:1".into() },
        ImageQuestion::Loaded { name: name() },
        ImageQuestion::Prune { unused_ms: 604_800_000 },
        ImageQuestion::Credentials {
            registries: vec![
                Credential {
                    registry: "r.example.org:5000".into(),
                    login: Some(Login { user: "ann".into(), password: Secret("very secret".into()) }),
                    set_ms: 1_700_000_000_000,
                },
                Credential { registry: "docker.io".into(), login: None, set_ms: 1_700_000_000_001 },
            ],
        },
    ]
    .map(Question::Image)
    .into()
}

fn told() -> Vec<Told> {
    [
        ImageTold::Held { blobs: vec![HeldBlob { digest: name().digest, size: 1_234 }], coming: Vec::new() },
        ImageTold::Held {
            blobs: Vec::new(),
            coming: vec![ComingBlob { digest: name().digest, begun: true }],
        },
        ImageTold::Blob { size: 1_234 },
        ImageTold::Names {
            names: vec![name(), ImageName { made: true, size_bytes: None, layers: None, ..name() }],
        },
        ImageTold::Copying { done: 1_024, total: 4_096 },
        ImageTold::Changed { changed: true },
        ImageTold::Collected { images: vec!["web:1".into()], freed_bytes: 1_234, trouble: None },
    ]
    .map(Told::Image)
    .into()
}

#[test]
fn the_wire_is_as_it_was() {
    frozen("image", &[lines(questions()), lines(told())].concat());
}

#[test]
fn a_password_is_not_shown() {
    let shown = format!("{:?}", questions());
    assert!(shown.contains("ann") && !shown.contains("secret"), "{shown}");
}
