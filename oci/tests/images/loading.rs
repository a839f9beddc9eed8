//! Images from layouts and archives, sound and damaged.

use std::collections::BTreeMap;
use std::fs;

use oci::content::Store;
use oci::digest::Digest;
use oci::layout;
use oci::reference::Reference;
use serde_json::json;

use crate::support::{Files, Image, Tar, World, gzip, zstd};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}

/// One plain layer and one of each compression.
fn sound(name: &str) -> Image {
    let archive = |name: &str| Tar::default().file(name, format!("{name}\n").repeat(100)).bytes();
    let (g, z) = (archive("g"), archive("z"));
    let image = Image::new(name).layer(Tar::default().dir("etc").file("etc/hostname", "base"));
    image.layer_as(g.clone(), gzip(&g), GZIP).layer_as(z.clone(), zstd(&z), ZSTD)
}

#[test]
fn from_every_form_of_a_layout() {
    let files = sound("hello:1").files();
    let mut digests = Vec::new();
    let tar = files.tar();
    for bytes in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let world = World::new();
        let mut progress = Vec::new();
        let path = world.dir.path().join("image");
        fs::write(&path, bytes).unwrap();
        let images =
            layout::load(&world.store, &path, None, &mut |done, total| progress.push((done, total))).unwrap();
        assert_eq!((images.len(), &images[0].reference), (1, &reference("hello:1")));
        digests.push(images[0].digest);
        let (done, total) = *progress.last().unwrap();
        assert!(done == total && progress.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{progress:?}");
        check(&world.store, &images[0].digest);
    }
    let world = World::new();
    let dir = files.write_dir(&world.dir.path().join("layout"));
    let images = layout::load(&world.store, &dir, None, &mut |_, _| {}).unwrap();
    digests.push(images[0].digest);
    assert!(digests.iter().all(|digest| *digest == digests[0]));
}

fn check(store: &Store, digest: &Digest) {
    assert_eq!(store.resolve(&reference("docker.io/library/hello:1")).unwrap(), *digest);
    let image = store.image(digest).unwrap();
    assert_eq!(
        (&image.entrypoint[..], &image.env[..], &image.cmd[..]),
        (&["/bin/sh".into()][..], &["A=1".into()][..], &[][..])
    );
    let layers = store.ensure_unpacked(digest).unwrap();
    assert_eq!((layers.len(), image.layers.len()), (3, 3));
    assert_eq!(fs::read_to_string(layers[2].join("etc/hostname")).unwrap(), "base");
    assert!(layers[1].join("g").exists() && layers[0].join("z").exists());
}

#[test]
fn names_and_where_they_come_from() {
    let named = |annotations: serde_json::Value, name: Option<&str>| {
        let world = World::new();
        let mut files = Files::default();
        let mut manifest = sound("x:1").add_to(&mut files);
        manifest["annotations"] = annotations;
        files.index(&[manifest]);
        let dir = files.write_dir(&world.dir.path().join("layout"));
        let loaded = layout::load(&world.store, &dir, name.map(reference).as_ref(), &mut |_, _| {});
        match loaded {
            Ok(images) => images[0].reference.to_string(),
            Err(error) => world.shown(&error),
        }
    };
    let (full, name) = ("io.containerd.image.name", "org.opencontainers.image.ref.name");
    assert_eq!(named(json!({full: "docker.io/library/busybox:1.36", name: "1.36"}), None), "busybox:1.36");
    assert_eq!(named(json!({name: "registry.example.org/a/b"}), None), "registry.example.org/a/b:latest");
    assert_eq!(named(json!({name: "1.36"}), Some("given:2")), "given:2");
    assert_eq!(named(json!(null), Some("given")), "given:latest");
    assert_eq!(
        named(json!({name: "1.36"}), None),
        r#"DIR/layout: the image has no name, only the tag "1.36"; give it one with --name NAME:TAG"#
    );
    assert_eq!(named(json!({}), None), "DIR/layout: the image has no name; give it one with --name NAME:TAG");
    let error = named(json!({name: "Not/Fit:1"}), None);
    assert!(
        error.starts_with("DIR/layout: the image's own name is unusable: image reference \"Not/Fit:1\""),
        "{error}"
    );
}

#[test]
fn several_images_in_one_file() {
    let world = World::new();
    let mut files = Files::default();
    let manifests = ["a:1", "b:1"].map(|name| sound(name).add_to(&mut files));
    files.index(&manifests);
    let images = world.load(&files).unwrap();
    assert_eq!(images.iter().map(|image| image.reference.to_string()).collect::<Vec<_>>(), ["a:1", "b:1"]);
    let dir = files.write_dir(&world.dir.path().join("layout"));
    let error = layout::load(&world.store, &dir, Some(&reference("c")), &mut |_, _| {}).unwrap_err();
    let expected =
        "DIR/layout: --name fits one image, the file holds a:1, b:1; load it without to keep their names";
    assert_eq!(world.shown(&error), expected);
}

#[test]
fn the_platform_of_this_machine_is_chosen() {
    let world = World::new();
    let mut files = Files::default();
    let ours = sound("x:1");
    let other = |name: &str| Image { architecture: name.into(), ..Image::new("x:1") };
    let mut describe = |image: &Image, architecture: &str, os: &str| {
        let mut manifest = image.add_to(&mut files);
        manifest["platform"] = json!({"architecture": architecture, "os": os});
        manifest["annotations"] = json!(null);
        manifest
    };
    let arch = ours.architecture.clone();
    let wanted = describe(&ours, &arch, "linux");
    let riscv = describe(&other("riscv64"), "riscv64", "linux");
    let windows = describe(&other(&arch), &arch, "windows");
    let attestation = describe(&other("unknown"), "unknown", "unknown");
    let mut nested = |manifests: &[&serde_json::Value]| {
        let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        let mut index = files.blob("application/vnd.oci.image.index.v1+json", index.as_bytes());
        index["annotations"] = json!({"org.opencontainers.image.ref.name": "x:1"});
        index
    };
    let good = nested(&[&riscv, &windows, &wanted, &attestation]);
    let bad = nested(&[&riscv, &windows, &attestation]);
    files.index(&[good]);
    let images = world.load(&files).unwrap();
    assert_eq!(images[0].digest.to_string(), wanted["digest"].as_str().unwrap());
    files.index(&[bad]);
    let error = world.load(&files).unwrap_err();
    let expected = format!(
        "DIR/image.tar: the image x:1 is not for this machine (linux/{arch}); there is linux/riscv64, windows/{arch}"
    );
    assert_eq!(world.shown(&error), expected);
}

#[test]
fn archives_of_docker_save() {
    let image = sound("unused");
    let config = image.config_json();
    let tar = |layers: &[&str], tags: serde_json::Value| {
        let manifest = json!([{"Config": "cfg.json", "RepoTags": tags, "Layers": layers}]).to_string();
        let (a, b, c) = (&image.layers[0].0, &image.layers[1].0, &image.layers[2].0);
        Tar::default()
            .file("cfg.json", &config)
            .file("1/layer.tar", a)
            .file("2/layer.tar", b)
            .file("3/real.tar", c)
            // As Docker did for a layer that it had written already.
            .symlink("3/layer.tar", "../3/real.tar")
            .file("manifest.json", manifest)
            .bytes()
    };
    let layers = ["1/layer.tar", "2/layer.tar", "3/layer.tar"];
    let world = World::new();
    let images = world.load_bytes(&tar(&layers, json!(["hello:1", "hello:latest"]))).unwrap();
    assert_eq!(images.len(), 2);
    check(&world.store, &images[0].digest);

    let refused = |bytes: Vec<u8>| world.shown(&world.load_bytes(&bytes).unwrap_err());
    assert_eq!(
        refused(tar(&layers, json!(null))),
        "DIR/image.tar: the image has no name; give it one with --name NAME:TAG"
    );
    assert_eq!(
        refused(tar(&["1/layer.tar", "../../../etc/passwd"], json!(["a:1"]))),
        "DIR/image.tar: ../../../etc/passwd, which manifest.json names, is missing"
    );
    let error = refused(tar(&["2/layer.tar", "1/layer.tar", "3/layer.tar"], json!(["a:1"])));
    assert!(error.contains("its content has the diff id sha256:"), "{error}");
}

/// The files of a sound image with one of them changed, and what is said about it.
#[test]
fn wrong_content_is_named() {
    let image = sound("hello:1");
    let files = image.files();
    let index_of = |part: &str| files.0.iter().position(|(name, _)| name.contains(part)).unwrap();
    let layer = Digest::of(&image.layers[1].1);
    let config = Digest::of(&image.config_json());
    let manifest = {
        let mut scratch = Files::default();
        let manifest = image.add_to(&mut scratch);
        manifest["digest"].as_str().unwrap().parse::<Digest>().unwrap()
    };
    let say = |change: &dyn Fn(&mut Files)| {
        let world = World::new();
        let mut files = files.clone();
        change(&mut files);
        let error = world.shown(&world.load(&files).unwrap_err());
        assert_eq!(world.content(), EMPTY, "{error}");
        error
            .replace(&layer.hex(), "LAYER")
            .replace(&config.hex(), "CONFIG")
            .replace(&manifest.hex(), "MANIFEST")
    };
    let remove = |part: String| say(&|files| files.0.retain(|(name, _)| !name.contains(&part)));
    let flip = |part: String| {
        say(&|files| {
            let bytes = &mut files.0[index_of(&part)].1;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        })
    };
    let longer = |part: String| say(&|files| files.0[index_of(&part)].1.push(0));

    assert_eq!(
        remove(layer.hex()),
        "DIR/image.tar: blobs/sha256/LAYER, which the manifest sha256:MANIFEST names, is missing"
    );
    assert_eq!(
        remove(config.hex()),
        "DIR/image.tar: blobs/sha256/CONFIG, which the manifest names, is missing"
    );
    assert_eq!(
        remove(manifest.hex()),
        "DIR/image.tar: blobs/sha256/MANIFEST, which the index names, is missing"
    );
    assert_eq!(
        remove("index.json".into()),
        "DIR/image.tar is no image: it holds neither index.json (OCI layout) nor manifest.json (docker save)"
    );
    assert!(flip(layer.hex()).starts_with("layer: expected sha256:LAYER ("));
    assert!(flip(config.hex()).starts_with("DIR/image.tar: blobs/sha256/CONFIG has the digest sha256:"));
    assert!(flip(manifest.hex()).starts_with("DIR/image.tar: blobs/sha256/MANIFEST has the digest sha256:"));
    let size = image.layers[1].1.len();
    assert_eq!(
        longer(layer.hex()),
        format!("DIR/image.tar: blobs/sha256/LAYER has {} bytes, announced are {size}", size + 1)
    );
    let error = say(&|files| files.0[index_of("index.json")].1 = b"{".to_vec());
    assert!(error.starts_with("DIR/image.tar: index.json cannot be read: EOF"), "{error}");
    let error = say(&|files| files.0[index_of("index.json")].1 = br#"{"manifests":[]}"#.to_vec());
    assert_eq!(error, "DIR/image.tar: it holds no image");
    let error = say(&|files| files.0[index_of("oci-layout")].1 = br#"{"imageLayoutVersion":"2.0"}"#.to_vec());
    assert_eq!(error, r#"DIR/image.tar: OCI layout version "2.0" is not known, only 1.x"#);
    let error = say(&|files| files.0[index_of("index.json")].1 = vec![b' '; 5 << 20]);
    assert_eq!(error, "DIR/image.tar: index.json has 5242880 bytes; real ones have at most 4194304");
}

/// What an empty store holds.
const EMPTY: [&str; 6] = ["blobs", "blobs/sha256", "layers", "names", "partial", "tmp"];

#[test]
fn pipes_are_refused_without_waiting_for_them() {
    let world = World::new();
    let pipe = world.dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let refused = |path: &std::path::Path| {
        let error = layout::load(&world.store, path, None, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("neither a file nor a directory"), "{error}");
    };
    refused(&pipe);
    let dir = sound("x:1").files().write_dir(&world.dir.path().join("layout"));
    fs::rename(&pipe, dir.join("index.json")).unwrap();
    refused(&dir);
}

#[test]
fn wrong_descriptions_are_named() {
    let say = |image: &Image, change: &dyn Fn(&mut serde_json::Value)| {
        let world = World::new();
        let mut files = Files::default();
        let mut manifest = image.add_to(&mut files);
        change(&mut manifest);
        files.index(&[manifest]);
        let error = world.shown(&world.load(&files).unwrap_err());
        assert_eq!(world.content(), EMPTY, "{error}");
        error
    };
    let archive = Tar::default().file("f", "").bytes();
    let image = Image::new("x:1").layer_as(archive.clone(), archive.clone(), "application/x-squashfs");
    let error = say(&image, &|_| {});
    let layer = Digest::of(&archive);
    let expected = format!(
        r#"DIR/image.tar: the layer {layer} has the media type "application/x-squashfs", which is not supported"#
    );
    assert_eq!(error, expected);
    let error = say(&sound("x:1"), &|manifest| manifest["mediaType"] = "application/x-artifact".into());
    assert!(
        error.ends_with(r#"has the media type "application/x-artifact", which is not supported"#),
        "{error}"
    );
    let error = say(&sound("x:1"), &|manifest| manifest["size"] = json!(u64::MAX));
    assert!(error.ends_with("bytes, announced are 18446744073709551615"), "{error}");
    let error = say(&sound("x:1"), &|manifest| manifest["size"] = json!(-1));
    assert!(
        error.starts_with("DIR/image.tar: index.json cannot be read: invalid value: integer `-1`"),
        "{error}"
    );
    let error = say(&sound("x:1"), &|manifest| manifest["digest"] = "sha256:../../../etc/passwd".into());
    assert!(error.contains("is not 64 lower-case hex digits"), "{error}");
    let error = say(&Image { architecture: "s390x".into(), ..sound("x:1") }, &|_| {});
    assert!(
        error.contains("the image x:1 is not for this machine") && error.ends_with("there is linux/s390x"),
        "{error}"
    );
    // A layer that is not what the config says.
    let mut image = sound("x:1");
    image.layers[1].0 = Tar::default().bytes();
    let error = say(&image, &|_| {});
    assert!(error.contains(": its content has the diff id "), "{error}");
    // One hostile layer above sound ones: nothing of the image stays.
    let error = say(&sound("x:1").layer(Tar::default().file("../f", "")), &|_| {});
    assert!(
        error.ends_with(r#"entry "../f": the path climbs with `..`: it could lead out of the layer"#),
        "{error}"
    );
}

/// An archive that ends anywhere, and one with any bit wrong, gives an error or the whole image; never a panic, never a
/// part of it.
#[test]
fn every_truncation_and_many_flipped_bits() {
    let image = Image::new("hello:1").layer(Tar::default().file("a", "x").symlink("l", "a"));
    let whole = image.files().tar();
    let world = World::new();
    let digest = world.load_bytes(&whole).unwrap()[0].digest;
    let unpacked = world.content();
    let mut outcomes = BTreeMap::new();
    let mut attempt = |bytes: &[u8], what: &str| {
        let world = World::new();
        match world.load_bytes(bytes) {
            Ok(images) => {
                assert!(images.iter().all(|image| image.digest == digest), "{what}");
                // Names are not covered by any digest; whatever else is there is whole.
                let content = |list: &[String]| -> Vec<String> {
                    list.iter().filter(|path| !path.starts_with("names/")).cloned().collect()
                };
                assert_eq!(content(&world.content()), content(&unpacked), "{what}");
                *outcomes.entry("loaded").or_insert(0) += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                assert_eq!(world.content(), EMPTY, "{what}: {error}");
                *outcomes.entry("refused").or_insert(0) += 1;
            }
        }
    };
    for end in (0..whole.len()).step_by(101) {
        attempt(&whole[..end], &format!("the first {end} bytes"));
    }
    for bit in (0..whole.len() * 8).step_by(797) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        attempt(&bytes, &format!("bit {bit} flipped"));
    }
    assert!(outcomes["refused"] > 50, "{outcomes:?}");
}
