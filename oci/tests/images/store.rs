//! The store: names, garbage, crashes, a full disk, several threads.

use std::fs;
use std::path::Path;
use std::sync::Barrier;

use nix::mount::{MsFlags, mount};
use oci::binary::{Binary, image_from_binary};
use oci::content::{Error, Store};
use oci::digest::Digest;
use oci::layout;
use oci::reference::Reference;

use crate::support::{Image, Tar, World, own_mounts};

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

fn image(name: &str) -> Image {
    // A base that images share, and a layer of its own.
    let base = Tar::default().file("etc/base", "shared");
    Image::new(name).layer(base).layer(Tar::default().file("name", name))
}

#[test]
fn names_come_and_go() {
    let world = World::new();
    let unknown = world.store.resolve(&reference("web:1")).unwrap_err();
    let expected = "no image is named web:1; no image is stored, load one with `covey image load FILE`";
    assert_eq!(unknown.to_string(), expected);
    let loaded = world.load(&image("web:1").files()).unwrap().remove(0);
    world.store.set_name(&reference("web:also"), &loaded.digest).unwrap();
    let names = |store: &Store| {
        store.list().unwrap().names.into_iter().map(|n| n.reference.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&world.store), ["web:1", "web:also"]);
    assert_eq!(world.store.image(&loaded.digest).unwrap().size, loaded.size);
    let error = world.store.resolve(&reference("web:2")).unwrap_err();
    assert_eq!(error.to_string(), "no image is named web:2; stored are web:1, web:also");
    let by_digest = reference(&format!("anything@{}", loaded.digest));
    assert_eq!(world.store.resolve(&by_digest).unwrap(), loaded.digest);
    let other = reference(&format!("web:1@{}", Digest::of(b"another")));
    assert!(matches!(world.store.remove(&other), Err(Error::UnknownImage { .. })));
    assert_eq!(world.store.remove(&reference("web:1")).unwrap(), loaded.digest);
    assert!(matches!(world.store.remove(&reference("web:1")), Err(Error::UnknownImage { .. })));
    // Another store on the same directory sees the same.
    let again = Store::open(world.store.root()).unwrap();
    assert_eq!(names(&again), ["web:also"]);
    // A name moves to the image that was loaded last.
    let newer =
        world.load(&Image::new("web:also").layer(Tar::default().file("new", "")).files()).unwrap().remove(0);
    assert_eq!(world.store.resolve(&reference("web:also")).unwrap(), newer.digest);
}

#[test]
fn garbage_is_what_nobody_needs() {
    let world = World::new();
    let empty = world.content();
    let a = world.load(&image("a:1").files()).unwrap().remove(0);
    let only_a = world.content();
    let b = world.load(&image("b:1").files()).unwrap().remove(0);
    let both = world.content();
    assert_eq!(world.store.collect(&[]).unwrap(), Default::default());
    assert_eq!(world.content(), both);
    world.store.remove(&reference("b:1")).unwrap();
    // A task still runs it.
    world.store.collect(&[b.digest]).unwrap();
    assert_eq!(world.store.ensure_unpacked(&b.digest).unwrap().len(), 2);
    let collected = world.store.collect(&[]).unwrap();
    // Manifest, config and top layer; the base is a's too.
    assert_eq!((collected.blobs, collected.layers), (3, 1));
    assert!(collected.blob_bytes > 0);
    assert_eq!(world.content(), only_a);
    assert!(matches!(world.store.image(&b.digest), Err(Error::MissingBlob { .. })));
    world.store.remove(&reference("a:1")).unwrap();
    // A digest of nothing that is stored is no reason to fail.
    world.store.collect(&[b.digest]).unwrap();
    assert_eq!(world.content(), empty);
    assert!(matches!(world.store.image(&a.digest), Err(Error::MissingBlob { .. })));
}

/// All images are known, named or not, and when they were used last.
#[test]
fn what_is_held_and_since_when() {
    let world = World::new();
    let a = world.load(&image("a:1").files()).unwrap().remove(0);
    let b = world.load(&image("b:1").files()).unwrap().remove(0);
    world.store.remove(&reference("b:1")).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for digest in [a.digest, b.digest] {
        let path = world.store.root().join("blobs/sha256").join(digest.hex());
        fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    let held =
        |digest: &Digest| world.store.held().unwrap().into_iter().find(|h| h.digest == *digest).unwrap();
    assert_eq!(world.store.held().unwrap().len(), 2);
    assert_eq!(held(&a.digest).names, [reference("a:1")]);
    assert_eq!((held(&b.digest).names.len(), held(&b.digest).used_ms), (0, 1_000_000_000_000));
    world.store.touch(&b.digest);
    assert!(held(&b.digest).used_ms > held(&a.digest).used_ms);
    // Nobody uses the one without a name.
    let collected = world.store.collect(&[]).unwrap();
    assert!(collected.layer_bytes > 0, "{collected:?}");
    assert_eq!(world.store.held().unwrap().len(), 1);
}

#[test]
fn an_unreadable_record_is_named_and_stops_nothing_else() {
    let world = World::new();
    let loaded = world.load(&image("web:1").files()).unwrap().remove(0);
    fs::write(world.store.root().join("names/broken.json"), "{").unwrap();
    let listing = world.store.list().unwrap();
    assert_eq!((listing.names.len(), listing.unreadable.len()), (1, 1));
    let message = world.shown(&listing.unreadable[0]);
    assert!(
        message
            .starts_with("the record of an image name, DIR/content/names/broken.json, cannot be read: EOF"),
        "{message}"
    );
    assert_eq!(world.store.resolve(&reference("web:1")).unwrap(), loaded.digest);
    // What the broken one needs is not known, so nothing may go.
    let before = world.content();
    assert!(matches!(world.store.collect(&[]), Err(Error::NameRecord { .. })));
    assert_eq!(world.content(), before);
}

#[test]
fn missing_and_corrupt_blobs_are_named_and_repaired_by_loading_again() {
    let world = World::new();
    let files = image("web:1").files();
    let loaded = world.load(&files).unwrap().remove(0);
    let blobs = world.store.root().join("blobs/sha256");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let digest = Digest::from_hex(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let whole = fs::read(&path).unwrap();
        let is_layer = whole.len() > 1024;
        for damaged in [None, Some(Vec::new()), Some([&whole[1..], b"x"].concat())] {
            match &damaged {
                None => fs::remove_file(&path).unwrap(),
                Some(bytes) => fs::write(&path, bytes).unwrap(),
            }
            fs::remove_dir_all(world.store.root().join("layers")).unwrap();
            fs::create_dir(world.store.root().join("layers")).unwrap();
            let error = world.store.ensure_unpacked(&loaded.digest).unwrap_err().to_string();
            assert!(error.contains(&digest.to_string()), "{error}");
            let says = if damaged.is_none() {
                "is missing from the store"
            } else if is_layer {
                "layer sha256:"
            } else {
                "is corrupt"
            };
            assert!(error.contains(says), "{error}");
            world.load(&files).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
            assert_eq!(world.store.ensure_unpacked(&loaded.digest).unwrap().len(), 2);
        }
    }
}

#[test]
fn leftovers_of_a_crash_go_when_the_store_is_opened() {
    let world = World::new();
    let loaded = world.load(&image("web:1").files()).unwrap().remove(0);
    let whole = world.content();
    let root = world.store.root().to_owned();
    fs::write(root.join("tmp/0"), "half a blob").unwrap();
    fs::create_dir_all(root.join("tmp/1/half/a/layer")).unwrap();
    std::os::unix::fs::symlink("/", root.join("tmp/2")).unwrap();
    // A layer that was never unpacked, or lost with the machine.
    let layer = fs::read_dir(root.join("layers")).unwrap().next().unwrap().unwrap().path();
    fs::rename(&layer, root.join("tmp/3")).unwrap();
    let store = Store::open(&root).unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    store.ensure_unpacked(&loaded.digest).unwrap();
    assert_eq!(world.content(), whole);
}

/// The process is killed at each step of a load that tells of itself: the image is whole then, or as good as never
/// heard of.
#[test]
fn a_crash_at_any_step() {
    let world = World::new();
    let incompressible: Vec<u8> =
        (0..600_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let files = image("web:1").layer(Tar::default().file("big", incompressible)).files();
    let dir = files.write_dir(&world.dir.path().join("layout"));
    // It is the process that ends, not the machine: the disk has no part in it.
    own_mounts();
    let stores = world.dir.path().join("stores");
    fs::create_dir(&stores).unwrap();
    mount(Some("covey"), &stores, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let mut whole = 0;
    let mut killed = 0;
    for step in 1.. {
        let root = stores.join(step.to_string());
        // SAFETY: the child only loads and ends itself; it takes no lock that another thread could have held.
        let child = match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Parent { child } => child,
            nix::unistd::ForkResult::Child => {
                let mut steps = 0;
                let loaded = Store::open(&root).map(|store| {
                    layout::load(&store, &dir, None, &mut |_, _| {
                        steps += 1;
                        if steps == step {
                            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
                        }
                    })
                });
                unsafe { libc::_exit(if matches!(loaded, Ok(Ok(_))) { 0 } else { 1 }) }
            }
        };
        let status = nix::sys::wait::waitpid(child, None).unwrap();
        let store = Store::open(&root).unwrap();
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
        match store.resolve(&reference("web:1")) {
            Ok(digest) => {
                assert_eq!(store.ensure_unpacked(&digest).unwrap().len(), 3);
                whole += 1;
            }
            Err(error) => {
                assert!(matches!(error, Error::UnknownImage { .. }), "{error}");
                // What it had come to is complete, and garbage; or it is taken up by the next load.
                let again = layout::load(&store, &dir, None, &mut |_, _| {}).unwrap();
                assert_eq!(store.ensure_unpacked(&again[0].digest).unwrap().len(), 3);
                store.remove(&reference("web:1")).unwrap();
                assert_eq!(store.collect(&[]).unwrap().blobs, 5);
                killed += 1;
            }
        }
        match status {
            nix::sys::wait::WaitStatus::Signaled(..) => {}
            exited => {
                assert!(matches!(exited, nix::sys::wait::WaitStatus::Exited(_, 0)), "{exited:?}");
                break;
            }
        }
    }
    assert!(killed > 10 && whole > 0, "{killed} killed, {whole} whole");
}

#[test]
fn many_threads_share_the_work() {
    let world = World::new();
    let files = image("web:1").files();
    let dir = files.write_dir(&world.dir.path().join("layout"));
    let barrier = Barrier::new(8);
    let load = || {
        barrier.wait();
        let loaded = layout::load(&world.store, &dir, None, &mut |_, _| {}).unwrap().remove(0);
        let layers = world.store.ensure_unpacked(&loaded.digest).unwrap();
        // Named and pinned content is safe from a collection at any moment.
        world.store.collect(&[]).unwrap();
        assert!(layers.iter().all(|layer| layer.is_dir()));
        (loaded, layers)
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fs::read_dir(world.store.root().join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.store.root().join("layers")).unwrap().count(), 2);
}

/// A failing load beside one of an image with the same base: the base stays for who needs it.
#[test]
fn a_failure_takes_nothing_from_others() {
    let world = World::new();
    let sound = image("web:1").files().write_dir(&world.dir.path().join("sound"));
    let hostile = image("bad:1").layer(Tar::default().file("../f", "")).files();
    let hostile = hostile.write_dir(&world.dir.path().join("hostile"));
    for _ in 0..8 {
        let barrier = Barrier::new(2);
        let load = |path: &Path| {
            barrier.wait();
            layout::load(&world.store, path, None, &mut |_, _| {})
        };
        let (good, bad) = std::thread::scope(|scope| {
            let good = scope.spawn(|| load(&sound));
            let bad = scope.spawn(|| load(&hostile));
            (good.join().unwrap(), bad.join().unwrap())
        });
        assert!(bad.is_err());
        let layers = world.store.ensure_unpacked(&good.unwrap()[0].digest).unwrap();
        assert_eq!(fs::read_to_string(layers[1].join("etc/base")).unwrap(), "shared");
        world.store.remove(&reference("web:1")).unwrap();
        assert_eq!(world.store.collect(&[]).unwrap().blobs, 4);
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_half_made() {
    own_mounts();
    let dir = tempfile::tempdir().unwrap();
    // Enough for the blob but not for the layer too, then not even for the blob.
    for (size, doing) in [("size=1100k", "entry \"big\": write the file: "), ("size=400k", "write the blob ")]
    {
        let content = dir.path().join(size);
        fs::create_dir(&content).unwrap();
        mount(Some("covey"), &content, Some("tmpfs"), MsFlags::empty(), Some(size)).unwrap();
        let store = Store::open(&content).unwrap();
        let files = Image::new("big:1").layer(Tar::default().file("big", vec![7; 700 << 10])).files();
        let layout_dir = files.write_dir(&dir.path().join("layout"));
        let error = layout::load(&store, &layout_dir, None, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains(doing), "{error}");
        let says = "No space left on device (os error 28); free some space there, e.g. with `covey image rm`";
        assert!(error.ends_with(says), "{error}");
        for dir in ["blobs/sha256", "layers", "names", "partial", "tmp"] {
            assert_eq!(fs::read_dir(content.join(dir)).unwrap().count(), 0, "{dir}");
        }
        // What fits still does.
        let small = image("small:1").files().write_dir(&dir.path().join("small"));
        layout::load(&store, &small, None, &mut |_, _| {}).unwrap();
    }
}

#[test]
fn an_image_of_one_binary() {
    let world = World::new();
    let exe = world.dir.path().join("program");
    fs::copy("/bin/busybox", &exe).unwrap();
    let make = |store: &Store, exe: &Path| {
        let binary = Binary { exe, name: "hello", cmd: &["--listen", ":8080"] };
        image_from_binary(store, &binary, &reference("hello:1")).unwrap()
    };
    let made = make(&world.store, &exe);
    assert_eq!(world.store.resolve(&reference("hello:1")).unwrap(), made.digest);
    let image = world.store.image(&made.digest).unwrap();
    assert_eq!(
        (&image.entrypoint[..], &image.cmd[..], image.size),
        (&["/hello".into()][..], &["--listen".into(), ":8080".into()][..], made.size)
    );
    let layers = world.store.ensure_unpacked(&made.digest).unwrap();
    let hello = layers[0].join("hello");
    assert_eq!(fs::read(&hello).unwrap(), fs::read("/bin/busybox").unwrap());
    // Unpacked anew from the blob, it is the same to the bit and in every attribute.
    let seen = |path: &Path| {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(path).unwrap();
        (meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.len())
    };
    let before = (seen(&layers[0]).0, seen(&hello));
    fs::remove_dir_all(&layers[0]).unwrap();
    world.store.ensure_unpacked(&made.digest).unwrap();
    assert_eq!((seen(&layers[0]).0, seen(&hello)), before);

    // Not made again for the same file; for another of the same content it has the same digest.
    let content = world.content();
    assert_eq!(make(&world.store, &exe), made);
    let copy = world.dir.path().join("copy");
    fs::copy(&exe, &copy).unwrap();
    assert_eq!(make(&world.store, &copy), made);
    assert_eq!(world.content(), content);
    let other = World::new();
    assert_eq!(make(&other.store, &exe), made);
    // Another executable under the name, and the old one's content is garbage.
    fs::copy("/bin/true", &copy).unwrap();
    assert_ne!(make(&world.store, &copy).digest, made.digest);
    assert_eq!(world.store.collect(&[]).unwrap().blobs, 3);
}

#[test]
fn an_image_that_was_not_flushed_does_not_outlive_the_boot() {
    let world = World::new();
    let kept = world.load(&image("web:1").files()).unwrap().remove(0);
    let empty_but = world.content();
    let binary = Binary { exe: Path::new("/bin/busybox"), name: "hello", cmd: &[] };
    image_from_binary(&world.store, &binary, &reference("hello:1")).unwrap();
    let store = Store::open(world.store.root()).unwrap();
    assert_eq!(store.list().unwrap().names.len(), 2);
    // As if the machine had been started again since.
    for entry in fs::read_dir(world.store.root().join("names")).unwrap() {
        let path = entry.unwrap().path();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(boot.trim(), "another")).unwrap();
    }
    let store = Store::open(world.store.root()).unwrap();
    assert_eq!(world.content(), empty_but);
    store.ensure_unpacked(&kept.digest).unwrap();
}
