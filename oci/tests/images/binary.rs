//! Images of users' own binaries.

use std::fs;
use std::path::Path;

use oci::binary::{FileError, image_from_file};

use crate::support::World;

fn refusal(world: &World, path: &Path) -> String {
    image_from_file(&world.store, path).unwrap_err().to_string().replace(path.to_str().unwrap(), "FILE")
}

#[test]
fn a_static_binary_is_an_image() {
    let (world, temp) = (World::new(), tempfile::tempdir().unwrap());
    // Tests are linked as the program is: statically.
    let exe = temp.path().join("My_Server");
    fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    let made = image_from_file(&world.store, &exe).unwrap();
    let short = &made.digest.hex()[..12];
    assert_eq!(made.reference.to_string(), format!("file/my-server:{short}"));
    let image = world.store.image(&made.digest).unwrap();
    assert_eq!((image.entrypoint.as_slice(), image.cmd.len()), (["/My_Server".to_string()].as_slice(), 0));
    let layers = world.store.ensure_unpacked(&made.digest).unwrap();
    assert_eq!(fs::read(layers[0].join("My_Server")).unwrap(), fs::read(&exe).unwrap());
    // The same again is the same, and no newer; on another machine too.
    let named = world.store.named(&made.reference).unwrap();
    assert_eq!(image_from_file(&world.store, &exe).unwrap(), made);
    assert_eq!(world.store.named(&made.reference).unwrap(), named);
    assert!(!named.unwrap().made, "it is kept as any other image is");
    assert_eq!(image_from_file(&World::new().store, &exe).unwrap().digest, made.digest);
    world.store.collect(&[]).unwrap();
    world.store.ensure_unpacked(&made.digest).unwrap();
}

#[test]
fn what_could_not_run_is_refused_and_why() {
    let (world, temp) = (World::new(), tempfile::tempdir().unwrap());
    let empty = world.content();
    let file = |name: &str, bytes: &[u8]| {
        let path = temp.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let dynamic = refusal(&world, Path::new("/usr/bin/env"));
    assert!(dynamic.starts_with("FILE is linked dynamically (it needs /lib"), "{dynamic}");
    let mut other = fs::read(std::env::current_exe().unwrap()).unwrap();
    other[18] = 243;
    let foreign = refusal(&world, &file("foreign", &other));
    assert!(foreign.starts_with("FILE is for riscv64, this machine is "), "{foreign}");
    assert!(refusal(&world, &file("script", b"#!/bin/sh\nexit 0\n")).starts_with("FILE is a script: "));
    assert_eq!(refusal(&world, &file("text", &[b'x'; 100])), "FILE is no executable of Linux (ELF)");
    assert_eq!(refusal(&world, &file("short", b"\x7fELF")), "FILE is no executable of Linux (ELF)");
    let cut = refusal(&world, &file("cut", &other[..64]));
    assert!(cut.starts_with("FILE is for riscv64"), "{cut}");
    other[18] = fs::read(std::env::current_exe().unwrap()).unwrap()[18];
    assert_eq!(refusal(&world, &file("cut", &other[..64])), "FILE is no executable of Linux (ELF)");
    assert!(refusal(&world, temp.path()).starts_with("FILE is a directory: "));
    assert!(refusal(&world, Path::new("/dev/null")).starts_with("FILE is no plain file: "));
    let none = image_from_file(&world.store, &temp.path().join("none")).unwrap_err();
    assert!(matches!(none, FileError::Io { .. }), "{none}");
    assert_eq!(world.content(), empty);
}
