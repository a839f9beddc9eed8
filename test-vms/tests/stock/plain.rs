//! Programs that end, and images without a distribution.

use std::fs;

use serde_json::json;

use crate::{
    image::Image,
    packages::{base, layer},
    used::Used,
};

/// A JVM finds its share of the machine by itself: a quarter of its memory is for the heap.
#[test]
fn jvm() {
    let app = layer("openjdk-17-jre-headless", |_| {});
    let java = "/usr/lib/jvm/java-17-openjdk-amd64";
    let config = json!({"Entrypoint": [format!("{java}/bin/java")], "Cmd": ["-version"],
        "Env": [format!("JAVA_HOME={java}")]});
    let image = Image::new("jvm:17", config).dir(&base()).dir(&app).finish();
    let task = "#batch\nmemory = \"512MiB\"\ncpu = \"1\"\ncommand = [\"${JAVA_HOME}/bin/java\", \
                \"-XshowSettings:all\", \"-version\"]";
    let jvm = Used::run(&image, "jvm", task);
    let log = jvm.log();
    assert!(log.contains("OpenJDK") && log.contains("Memory Limit: 512.00M"), "{log}");
    assert!(
        log.contains("Effective CPU Count: 1") && log.contains("Max. Heap Size (Estimated): 123"),
        "{log}"
    );
}

/// One static program and nothing else.
#[test]
fn from_scratch() {
    let root = tempfile::tempdir().unwrap();
    fs::copy("/bin/busybox", root.path().join("busybox")).unwrap();
    fs::write(root.path().join("index.html"), "from scratch\n").unwrap();
    let config = json!({"Entrypoint": ["/busybox", "httpd", "-f", "-p"], "Cmd": ["8080"], "WorkingDir": "/"});
    let image = Image::new("scratch:1", config).dir(root.path()).finish();
    let scratch = Used::run(
        &image,
        "scratch",
        "network = \"private\"\nports = [\"http=8080\"]\nhealth = { tcp = \"http\" }",
    );
    scratch.ask("http", b"GET /index.html HTTP/1.0\r\n\r\n", "from scratch");
}

/// A user that is only a number, with a directory of its own.
#[test]
fn not_root() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("work");
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::chown(&dir, Some(1000), Some(1000)).unwrap();
    let config = json!({"Cmd": ["sh", "-c", "id -u; id -g; pwd; echo mine > file && cat file; cat /etc/shadow; touch /no"],
        "User": "1000:1000", "WorkingDir": "/work"});
    let image = Image::new("user:1", config).dir(&base()).dir(home.path()).finish();
    let user = Used::run(
        &image,
        "user",
        "#batch\ncommand = [\"sh\", \"-c\", \"id -u; id -g; pwd; echo mine > file && cat file; touch /no || true\"]",
    );
    let log = user.log();
    assert!(log.contains("1000\n1000\n/work\nmine\n") && log.contains("Permission denied"), "{log}");
}

/// What an image calls a volume begins with what the image has there, is kept over restarts, and goes with the task.
#[test]
fn volumes_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::copy("/bin/busybox", root.path().join("busybox")).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("seed"), "from the image\n").unwrap();
    std::os::unix::fs::chown(&data, Some(1000), Some(1000)).unwrap();
    let script = "echo started >> /data/starts; exec /busybox sleep 1000";
    let config = json!({"Cmd": ["/busybox", "sh", "-c", script], "User": "1000:1000", "StopSignal": "SIGKILL",
        "Volumes": {"/data": {}}});
    let image = Image::new("keeper:1", config).dir(root.path()).finish();
    let keeper = Used::run(
        &image,
        "keeper",
        "health = { command = [\"/busybox\", \"test\", \"-s\", \"/data/starts\"] }",
    );
    let found = ["/busybox", "cat", "/data/seed", "/data/starts"];
    assert_eq!(keeper.exec(&found), "from the image\nstarted\n");
    assert!(
        keeper.exec(&["/busybox", "cat", "/proc/mounts"]).contains(" /data "),
        "outside of the writable layer"
    );
    keeper.restart();
    assert_eq!(keeper.exec(&found), "from the image\nstarted\nstarted\n");
    assert_eq!(keeper.kept("anonymous").len(), 1);
    keeper.stop();
    keeper.until("its data is gone", |keeper| keeper.kept("anonymous").is_empty());
}
