//! Blobs that come from elsewhere, in pieces.

use oci::content::{Error, Part, Store};
use oci::digest::Digest;

use crate::support::{Image, Tar, World};

fn image() -> Image {
    let layer = |text: &str| Tar::default().file("file", text);
    Image::new("web:1").layer(layer("one")).layer(layer("two"))
}

/// Copies what `to` lacks of the image, a piece of `piece` bytes at a time.
fn copy(from: &Store, to: &Store, image: &Digest, piece: usize) {
    let mut lease = to.lease();
    lease.hold(image);
    loop {
        let missing = to.missing(image).unwrap();
        let Some(part) = missing.first() else { return };
        let bytes = std::fs::read(from.root().join("blobs/sha256").join(part.digest.hex())).unwrap();
        assert_eq!(from.size_of(&part.digest), Some(bytes.len() as u64));
        assert!(part.size.is_none_or(|size| size == bytes.len() as u64));
        let mut incoming = to.receive(part, bytes.len() as u64).unwrap();
        for bytes in bytes.chunks(piece) {
            incoming.write(bytes).unwrap();
        }
        assert_eq!(to.size_of(&part.digest), None, "not seen before it is whole");
        to.adopt(incoming, &mut lease).unwrap();
    }
}

#[test]
fn an_image_goes_from_store_to_store() {
    let (from, to) = (World::new(), World::new());
    let loaded = from.load(&image().files()).unwrap().remove(0);
    let manifest = Part { what: "manifest", digest: loaded.digest, size: None };
    assert_eq!(to.store.missing(&loaded.digest).unwrap(), [manifest]);
    copy(&from.store, &to.store, &loaded.digest, 100);
    assert_eq!(to.store.image(&loaded.digest).unwrap(), from.store.image(&loaded.digest).unwrap());
    to.store.ensure_unpacked(&loaded.digest).unwrap();
    // Not named yet, and no longer held: garbage.
    to.store.collect(&[]).unwrap();
    assert_eq!(to.store.missing(&loaded.digest).unwrap(), [manifest]);
}

#[test]
fn only_what_was_wanted_is_taken() {
    let world = World::new();
    let empty = world.content();
    let wanted = b"what is wanted";
    let part = Part { what: "layer", digest: Digest::of(wanted), size: Some(14) };
    let mut lease = world.store.lease();
    for (given, size) in
        [(b"something else".as_slice(), 14), (b"what is".as_slice(), 14), (b"what is".as_slice(), 7)]
    {
        let mut incoming = world.store.receive(&part, size).unwrap();
        incoming.write(given).unwrap();
        let error = world.store.adopt(incoming, &mut lease).unwrap_err();
        assert!(matches!(&error, Error::Mismatch { expected, .. } if *expected == part.digest), "{error}");
    }
    let mut incoming = world.store.receive(&part, 14).unwrap();
    incoming.write(b"what is").unwrap();
    let error = incoming.write(b" wanted and more").unwrap_err().to_string();
    assert!(error.starts_with(&format!("layer: expected {} (14 bytes)", part.digest)), "{error}");
    assert_eq!(incoming.received(), 7);
    incoming.write(b" wanted").unwrap();
    world.store.adopt(incoming, &mut lease).unwrap();
    assert_eq!(world.store.size_of(&part.digest), Some(14));
    lease.abandon(&world.store).unwrap();
    assert_eq!(world.content(), empty);
}

#[test]
fn an_older_name_does_not_replace_a_newer_one() {
    let world = World::new();
    let a = world.load(&image().files()).unwrap().remove(0);
    let other = Image::new("other:1").layer(Tar::default().file("file", "other"));
    let b = world.load(&other.files()).unwrap().remove(0);
    let named = || world.store.named(&a.reference).unwrap().unwrap();
    let set_ms = named().set_ms;
    assert!(set_ms > 1_600_000_000_000 && !named().made, "when it was loaded");
    assert!(!world.store.set_name_at(&a.reference, &b.digest, set_ms - 1).unwrap());
    assert_eq!(named().digest, a.digest);
    assert!(world.store.set_name_at(&a.reference, &b.digest, set_ms + 1).unwrap());
    assert_eq!((named().digest, named().set_ms), (b.digest, set_ms + 1));
}

/// What broke off goes on where it was, in another store on the same directory too; what was wrong does not.
#[test]
fn a_large_blob_goes_on_where_it_broke_off() {
    let world = World::new();
    let wanted: Vec<u8> = (0..3_u32 << 20).map(|n| (n >> 3) as u8).collect();
    let (half, size) = (2 << 20, wanted.len() as u64);
    let part = Part { what: "layer", digest: Digest::of(&wanted), size: Some(size) };
    let mut lease = world.store.lease();
    let mut broken = world.store.receive(&part, size).unwrap();
    broken.write(&wanted[..half]).unwrap();
    // Another who wants it meanwhile begins anew.
    assert_eq!(world.store.receive(&part, size).unwrap().received(), 0);
    drop(broken);
    let again = Store::open(world.store.root()).unwrap();
    let mut incoming = again.receive(&part, size).unwrap();
    assert_eq!(incoming.received(), half as u64);
    let mut wrong = wanted[half..].to_vec();
    wrong[0] ^= 1;
    incoming.write(&wrong).unwrap();
    assert!(matches!(again.adopt(incoming, &mut lease), Err(Error::Mismatch { .. })));
    let mut incoming = again.receive(&part, size).unwrap();
    assert_eq!(incoming.received(), 0, "nothing of what was wrong is left");
    incoming.write(&wanted[..half]).unwrap();
    drop(incoming);
    // Not in use and not old: it goes only when all of it is to go.
    assert_eq!(again.collect_partial(false).unwrap(), 0);
    let mut incoming = again.receive(&part, size).unwrap();
    assert_eq!(again.collect_partial(true).unwrap(), 0, "it is coming in");
    incoming.write(&wanted[half..]).unwrap();
    again.adopt(incoming, &mut lease).unwrap();
    assert_eq!(again.size_of(&part.digest), Some(size));
    let mut incoming = again.receive(&part, size).unwrap();
    incoming.write(&wanted[..half]).unwrap();
    drop(incoming);
    assert_eq!(again.collect_partial(true).unwrap(), half as u64);
}
