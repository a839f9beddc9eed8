//! What nodes ask each other about images, frozen. `UPDATE=1` rewrites the golden file.
#![allow(clippy::unwrap_used)]

mod golden;

use golden::{frozen, lines};
use gossip::wire::{
    ask::{Question, Told},
    image::{HeldBlob, ImageName, ImageQuestion, ImageTold},
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
    ]
    .map(Question::Image)
    .into()
}

fn told() -> Vec<Told> {
    [
        ImageTold::Held { blobs: vec![HeldBlob { digest: name().digest, size: 1_234 }] },
        ImageTold::Blob { size: 1_234 },
        ImageTold::Names {
            names: vec![name(), ImageName { made: true, size_bytes: None, layers: None, ..name() }],
        },
        ImageTold::Copying { done: 1_024, total: 4_096 },
        ImageTold::Changed { changed: true },
    ]
    .map(Told::Image)
    .into()
}

#[test]
fn the_wire_is_as_it_was() {
    frozen("image", &[lines(questions()), lines(told())].concat());
}
