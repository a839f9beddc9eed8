use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use test_vms::lab;

use crate::cell::Cell;

/// An image is loaded on one node and kept on three; tasks on the others have it from those; a lost copy is made good.
#[test]
fn an_image_gets_to_where_it_is_needed() {
    let cell = Cell::of("image", 5);
    let all = cell.hosts().unwrap();
    let file = image(&cell);
    let loaded = cell.json("h1", &["image", "load", &file, "--name", "web:1"]).unwrap();
    let kept = nodes(&loaded["items"][0]);
    assert_eq!(kept.len(), 3, "{loaded:#}");
    assert!(kept.contains(&"h1".to_owned()), "{loaded:#}");
    let lacking = cell.others(&kept.iter().map(String::as_str).collect::<Vec<_>>());

    // Through a node that has nothing of it.
    let job = fs::read_to_string(cell.web("web", 5)).unwrap().replace("hello:1", "web:1");
    cell.run(&lacking[0], &cell.file("web.toml", &job));
    let tasks = cell.running("h1", "web", 5, &all);
    for host in &lacking {
        let task = tasks.values().find(|task| task.node == *host).expect("five tasks on five nodes");
        assert!(cell.asks(task, "/healthz").contains("200 OK"));
        let events = cell.json(host, &["events"]).unwrap();
        let fetched = events["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|event| event["kind"] == "fetched" && event["node"] == **host)
            .unwrap_or_else(|| panic!("{host} fetched it: {events:#}"));
        assert!(fetched["detail"]["ms"].is_u64(), "{fetched:#}");
    }

    // The cell's images, through any node.
    for host in &all {
        assert_eq!(nodes(&listed(&cell, host)), kept, "as {host} sees it");
    }
    let lost = kept.iter().find(|host| *host != "h1").unwrap();
    cell.crash(lost).unwrap();
    cell.wait("another copy", || {
        let now = nodes(&listed(&cell, "h1"));
        if now.len() == 3 && !now.contains(lost) { Ok(()) } else { Err(format!("{now:?}")) }
    });

    cell.covey("h1", &["stop", "web"]).unwrap();
    cell.covey(&lacking[1], &["image", "rm", "web:1"]).unwrap();
    let left = cell.json("h1", &["image", "ls"]).unwrap();
    assert!(left["items"].as_array().unwrap().iter().all(|item| item["reference"] != "web:1"), "{left:#}");
}

fn listed(cell: &Cell, host: &str) -> Value {
    let list = cell.json(host, &["image", "ls"]).unwrap();
    let found = list["items"].as_array().unwrap().iter().find(|item| item["reference"] == "web:1").cloned();
    found.unwrap_or_else(|| panic!("{host} lists it: {list:#}"))
}

fn nodes(item: &Value) -> Vec<String> {
    item["nodes"].as_array().unwrap().iter().map(|node| node.as_str().unwrap().to_owned()).collect()
}

/// An OCI layout of one layer: the binary that is tested, as its hello server.
fn image(cell: &Cell) -> String {
    let dir = lab::directory(cell.name()).join("image");
    let root = dir.join("root");
    fs::create_dir_all(&root).unwrap();
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::copy(test_vms::binary::covey().unwrap(), root.join("hello")).unwrap();
    let layer = dir.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&layer)
        .arg("hello");
    assert!(tar.status().unwrap().success());
    let layer = blob(&dir, "layer.v1.tar", &layer);
    let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": machine,
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = document(&dir, "config.v1+json", &config);
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest = document(&dir, "manifest.v1+json", &manifest);
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    dir.display().to_string()
}

fn document(dir: &Path, media_type: &str, document: &Value) -> Value {
    let path = dir.join("document");
    fs::write(&path, document.to_string()).unwrap();
    blob(dir, media_type, &path)
}

/// Moves a file to where its digest says.
fn blob(dir: &Path, media_type: &str, path: &Path) -> Value {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    let hex = String::from_utf8(output.stdout).unwrap()[..64].to_owned();
    let size = fs::metadata(path).unwrap().len();
    fs::rename(path, dir.join("blobs/sha256").join(&hex)).unwrap();
    let media_type = format!("application/vnd.oci.image.{media_type}");
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size})
}
