//! What is odd about layers.

use std::{fs, process::Command};

use serde_json::json;

use crate::{image::Image, packages::base, used::Used};

/// 60 layers: each adds a file, changes one, and takes its grandmother's away.
#[test]
fn sixty() {
    let config = json!({"Cmd": ["sh", "-c", "cat /count; ls /files | wc -l; ls /files"]});
    let mut image = Image::new("deep:60", config).dir(&base());
    for number in 1..60 {
        let layer = tempfile::tempdir().unwrap();
        fs::create_dir(layer.path().join("files")).unwrap();
        fs::write(layer.path().join("count"), format!("{number}\n")).unwrap();
        fs::write(layer.path().join("files").join(format!("{number:02}")), "").unwrap();
        if number > 2 {
            fs::write(layer.path().join("files").join(format!(".wh.{:02}", number - 2)), "").unwrap();
        }
        image = image.dir(layer.path());
    }
    let deep = Used::run(&image.finish(), "deep", "#batch");
    assert_eq!(deep.log(), "59\n2\n58\n59\n");
}

/// Hard links stay links, over layers too; attributes and capabilities of files stay.
#[test]
fn links_and_attributes() {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str| root.path().join(name);
    fs::write(file("one"), "same\n").unwrap();
    fs::hard_link(file("one"), file("two")).unwrap();
    fs::copy("/bin/busybox", file("able")).unwrap();
    let set = |name: &str, value: &str, path: &str| {
        let mut set = Command::new("setfattr");
        assert!(set.args(["-n", name, "-v", value]).arg(file(path)).status().unwrap().success());
    };
    set("user.note", "kept", "one");
    // cap_net_raw=ep, as in a package that ships ping.
    set("security.capability", "0sAQAAAgAgAAAAAAAAAAAAAAAAAAA=", "able");
    let script = "exec 2>/dev/null; stat -c %h /one; test /one -ef /two && echo same; getfattr -n user.note --only-values /one; echo; \
                  getfattr -n security.capability -e hex /able | grep -c 0x";
    let config = json!({"Cmd": ["sh", "-c", script]});
    let image = Image::new("links:1", config).dir(&base()).dir(root.path()).finish();
    let links = Used::run(&image, "links", "#batch");
    assert_eq!(links.log(), "2\nsame\nkept\n1\n");
}
