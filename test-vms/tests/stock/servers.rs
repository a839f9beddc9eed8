//! Programs that listen.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::json;

use crate::{
    image::Image,
    packages::{add_user, base, layer, owned_dir},
    used::Used,
};

const GET: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn script(root: &Path, path: &str, text: &str) {
    write(root, path, text);
    fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Port 80 as root of its own network, workers as another user, SIGQUIT to end gracefully.
#[test]
fn nginx() {
    let app = layer("nginx-light", |root| {
        write(root, "var/www/html/index.html", "<p>from nginx</p>\n");
        write(
            root,
            "etc/nginx/sites-enabled/default",
            "server { listen 80; root /var/www/html; access_log /dev/stdout; }\n",
        );
        owned_dir(root, "/var/lib/nginx", 33);
        owned_dir(root, "/var/log/nginx", 33);
    });
    let config = json!({"Cmd": ["nginx", "-g", "daemon off; error_log /dev/stderr info;"], "StopSignal": "SIGQUIT",
        "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "ExposedPorts": {"80/tcp": {}}});
    let image = Image::new("nginx:1", config).dir(&base()).dir(&app).finish();
    let nginx = Used::run(
        &image,
        "nginx",
        "network = \"private\"\nports = [\"http=80\"]\nhealth = { tcp = \"http\" }",
    );
    nginx.ask("http", GET, "from nginx");
    nginx.logged("\"GET / HTTP/1.0\" 200");
    let ended = nginx.stop();
    assert!(ended.contains("code 0"), "{ended}");
}

/// A declared volume, a working directory in it, another user.
#[test]
fn redis() {
    let app = layer("redis-server", |root| {
        add_user(root, "redis", 999, "/data");
        owned_dir(root, "/data", 999);
    });
    let config = json!({"Entrypoint": ["redis-server"], "Cmd": ["--protected-mode", "no", "--save", "1 1"],
        "User": "redis", "WorkingDir": "/data", "Volumes": {"/data": {}}});
    let image = Image::new("redis:7", config).dir(&base()).dir(&app).finish();
    let redis = Used::run(
        &image,
        "redis",
        "network = \"private\"\nports = [\"redis=6379\"]\nhealth = { tcp = \"redis\" }",
    );
    redis.ask("redis", b"SET key kept\r\n", "+OK");
    redis.ask("redis", b"GET key\r\n", "kept");
    redis.ask("redis", b"SAVE\r\n", "+OK");
    assert!(redis.exec(&["stat", "-c", "%U", "dump.rdb"]).starts_with("redis"));
    let ended = redis.stop();
    assert!(ended.contains("code 0"), "{ended}");
}

/// An entrypoint script that begins as root, makes a database in a volume and goes on as another user.
#[test]
fn postgres() {
    let app = layer("postgresql-15", |root| {
        add_user(root, "postgres", 105, "/var/lib/postgresql");
        owned_dir(root, "/var/run/postgresql", 105);
        script(
            root,
            "usr/local/bin/entrypoint.sh",
            "#!/bin/bash\nset -e\nmkdir -p \"$PGDATA\" && chown postgres:postgres \"$PGDATA\" && chmod 700 \"$PGDATA\"\n\
             run() { exec setpriv --reuid postgres --regid postgres --clear-groups \"$@\"; }\n\
             [ -s \"$PGDATA/PG_VERSION\" ] || (run initdb --no-sync -A trust)\nrun \"$@\"\n",
        );
    });
    let config = json!({"Entrypoint": ["entrypoint.sh"], "Cmd": ["postgres", "-c", "listen_addresses=*"],
        "StopSignal": "SIGINT", "Volumes": {"/var/lib/postgresql/data": {}},
        "Env": ["PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin", "PGDATA=/var/lib/postgresql/data"]});
    let image = Image::new("postgres:15", config).dir(&base()).dir(&app).finish();
    let ready = "ready = { command = [\"pg_isready\", \"-q\"] }";
    let task = format!("memory = \"256MiB\"\nnetwork = \"private\"\nports = [\"sql=5432\"]\n{ready}");
    let postgres = Used::run(&image, "postgres", &task);
    let sql = "create table t(x int); insert into t values (41), (1); select sum(x) from t";
    assert!(postgres.exec(&["psql", "-U", "postgres", "-tA", "-c", sql]).contains("42"));
    let ended = postgres.stop();
    assert!(ended.contains("code 0"), "{ended}");
}

#[test]
fn python() {
    let app = layer("python3", |_| {});
    let server = "import http.server, os\nclass H(http.server.BaseHTTPRequestHandler):\n  def do_GET(self):\n    \
                  self.send_response(200); self.end_headers(); self.wfile.write(os.environ['GREETING'].encode())\n\
                  http.server.HTTPServer(('', int(os.environ['PORT_http'])), H).serve_forever()\n";
    let app = {
        let with = tempfile::tempdir().unwrap();
        write(with.path(), "srv/app.py", server);
        (app, with)
    };
    let config = json!({"Cmd": ["python3", "app.py"], "WorkingDir": "/srv", "Env": ["GREETING=hello", "PYTHONUNBUFFERED=1"]});
    let image = Image::new("python:3", config).dir(&base()).dir(&app.0).dir(app.1.path()).finish();
    // On the node's network, with the port that is allotted there.
    let task = "ports = [\"http\"]\nenv = { GREETING = \"from python\" }\nhealth = { http = \"/\", port = \"http\" }";
    let python = Used::run(&image, "python", task);
    python.ask("http", GET, "from python");
    python.logged("GET / HTTP/1.0");
}

#[test]
fn node() {
    let app = layer("nodejs", |_| {});
    let with = tempfile::tempdir().unwrap();
    write(
        with.path(),
        "app/server.js",
        "const s = require('http').createServer((q, a) => a.end('from node ' + process.version));\n\
         s.listen(3000); process.on('SIGTERM', () => s.close(() => { console.log('bye'); process.exit(0); }));\n",
    );
    let config =
        json!({"Entrypoint": ["node"], "Cmd": ["server.js"], "WorkingDir": "/app", "User": "65534:65534"});
    let image = Image::new("node:18", config).dir(&base()).dir(&app).dir(with.path()).finish();
    let node = Used::run(
        &image,
        "node",
        "network = \"private\"\nports = [\"http=3000\"]\nready = { tcp = \"http\" }",
    );
    node.ask("http", GET, "from node v18");
    let ended = node.stop();
    assert!(ended.contains("code 0"), "{ended}");
}

#[test]
fn haproxy() {
    let app = layer("haproxy", |root| {
        add_user(root, "haproxy", 100, "/var/lib/haproxy");
        write(
            root,
            "usr/local/etc/haproxy/haproxy.cfg",
            "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\nfrontend f\n bind :8080\n \
             http-request return status 200 content-type text/plain string from-haproxy\n",
        );
    });
    let config = json!({"Cmd": ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"], "User": "haproxy",
        "StopSignal": "SIGUSR1"});
    let image = Image::new("haproxy:2", config).dir(&base()).dir(&app).finish();
    let task = "network = \"private\"\nports = [\"http=8080\"]\nhealth = { http = \"/\", port = \"http\" }";
    let haproxy = Used::run(&image, "haproxy", task);
    haproxy.ask("http", GET, "from-haproxy");
    let ended = haproxy.stop();
    assert!(ended.contains("told to"), "{ended}");
}

#[test]
fn memcached() {
    let app = layer("memcached", |root| add_user(root, "memcache", 11211, "/"));
    let config = json!({"Cmd": ["memcached", "-m", "16"], "User": "memcache"});
    let image = Image::new("memcached:1", config).dir(&base()).dir(&app).finish();
    let task = "network = \"private\"\nports = [\"mc=11211\"]\nready = { tcp = \"mc\" }";
    let memcached = Used::run(&image, "memcached", task);
    memcached.ask("mc", b"set k 0 0 4\r\nkept\r\n", "STORED");
    memcached.ask("mc", b"get k\r\n", "kept");
}
