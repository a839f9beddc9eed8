//! A node's worth of things to run containers with: a tree of cgroups, an image of one busybox, bundles.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unreachable_pub)]

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci::bundle::{Announcement, Bundle, BundleConfig, ExitRecord, Failure, IdMap, State, VERSION};
use oci::cgroup::{Band, Limits, Tree};
use oci::container::{self, ForkServer, Live};
use oci::logs;
use oci::spec::{self, Host, SpecInput};

static COUNT: AtomicU32 = AtomicU32::new(0);

pub const IDS: IdMap = IdMap { host: 300_000, size: 65_536 };

/// Everything goes away with it.
pub struct World {
    pub dir: tempfile::TempDir,
    pub tree: Tree,
    /// Gone before the tree is.
    pub server: Option<ForkServer>,
    pub layer: PathBuf,
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, run) in self.tree.list() {
            let _ = self.tree.kill(&run);
        }
        self.server = None;
        let cleared = self.tree.clear();
        if !std::thread::panicking() {
            cleared.expect("the tree of cgroups can be removed");
        }
    }
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::Builder::new().prefix("covey-oci-").tempdir().unwrap();
        let node = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (tree, warnings) = Tree::open(&node);
        assert_eq!(warnings, []);
        let layer = dir.path().join("layer");
        for sub in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir_all(layer.join(sub)).unwrap();
        }
        std::fs::copy("/bin/busybox", layer.join("bin/busybox"))
            .expect("Debian's busybox-static is installed");
        for applet in
            "sh cat echo id sleep hostname mount unshare mknod ls dd head yes kill ps true false grep \
                       touch stat wc seq env readlink tail ulimit chmod mkfifo su pwd nice test printf"
                .split_whitespace()
        {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        std::fs::copy(shim(), layer.join("bin/probe")).unwrap();
        std::fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:101:102::/srv:/bin/sh\n")
            .unwrap();
        std::fs::write(layer.join("etc/group"), "root:x:0:\nweb:x:102:\nlog:x:7:web\n").unwrap();
        let server = Some(ForkServer::start(&shim(), &tree).unwrap());
        World { dir, tree, server, layer }
    }

    /// Leave the host's mounts, with a fork server that does so too: what the caller mounts from here on nobody else sees.
    pub fn leave_mounts(&mut self) {
        self.server = None;
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        const NONE: Option<&str> = None;
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(NONE, "/", NONE, private, NONE).unwrap();
        self.server = Some(ForkServer::start(&shim(), &self.tree).unwrap());
    }

    pub fn server(&self) -> &ForkServer {
        self.server.as_ref().unwrap()
    }

    /// A run of `sh -c SCRIPT`, to be adjusted.
    pub fn run(&self, name: &str, script: &str) -> Run<'_> {
        self.program(name, &["sh", "-c", script])
    }

    pub fn program(&self, name: &str, args: &[&str]) -> Run<'_> {
        let config = BundleConfig {
            version: VERSION,
            run: name.into(),
            layers: vec![self.layer.clone()],
            idmap: Some(IDS),
            user: None,
            cgroup: self.tree.placement(Band::Batch, name),
            limits: Limits {
                cpu_milli: Some(1000),
                memory_bytes: Some(64 << 20),
                pids: Some(100),
                ..Limits::default()
            },
            log_cap_bytes: 64 << 20,
            network: None,
            binds: Vec::new(),
            project: None,
        };
        let input = SpecInput {
            args: args.iter().map(|a| a.to_string()).collect(),
            env: vec!["GREETING=hi".into()],
            cwd: "/".into(),
            hostname: "box".into(),
            idmap: Some(IDS),
            read_only: false,
            oom_score_adj: 100,
            network: None,
            etc: vec![("/etc/hosts".into(), "/etc/hosts".into())],
            capabilities: Vec::new(),
            tmpfs: Vec::new(),
            binds: Vec::new(),
        };
        Run { world: self, config, input, host: Host::detect() }
    }
}

pub struct Run<'a> {
    world: &'a World,
    pub config: BundleConfig,
    pub input: SpecInput,
    pub host: Host,
}

/// A shim and what it said.
pub struct Running {
    pub bundle: Bundle,
    pub said: Announcement,
}

pub fn shim() -> PathBuf {
    example("shim")
}

fn example(name: &str) -> PathBuf {
    // target/TRIPLE/debug/deps/container-HASH → target/TRIPLE/debug/examples/NAME
    let exe = std::env::current_exe().unwrap();
    let exe = exe.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(exe.exists(), "{} is built by `cargo test` and `cargo nextest run`", exe.display());
    exe
}

impl Run<'_> {
    pub fn bundle(&mut self) -> Bundle {
        self.input.idmap = self.config.idmap;
        self.input.binds.clone_from(&self.config.binds);
        let spec = spec::build(&self.input, &self.host).unwrap();
        Bundle::create(self.world.dir.path().join(&self.config.run), &self.config, &spec).unwrap()
    }

    /// Start it, whatever comes of that.
    pub fn spawn(mut self) -> Running {
        let bundle = self.bundle();
        self.spawn_in(bundle)
    }

    fn spawn_in(self, bundle: Bundle) -> Running {
        let mut said = Vec::new();
        self.world.server().spawn(bundle.dir(), &self.config.cgroup).unwrap().read_to_end(&mut said).unwrap();
        let said = container::parse_announcement(bundle.dir(), &said).unwrap();
        Running { bundle, said }
    }

    pub fn start(self) -> Running {
        let running = self.spawn();
        if let Announcement::Failed(failure) = &running.said {
            panic!("{failure} ({})", failure.hint);
        }
        running
    }

    /// In a bundle that was made before.
    pub fn start_in(self, bundle: Bundle) -> Running {
        let running = self.spawn_in(bundle);
        running.state();
        running
    }

    pub fn fail(self) -> Failure {
        let running = self.spawn();
        let Announcement::Failed(failure) = &running.said else { panic!("it started") };
        let failure = failure.clone();
        running.gone();
        let record = running.bundle.exit_record().unwrap().unwrap();
        assert_eq!(record.error.as_ref(), Some(&failure));
        container::remove(&running.bundle).unwrap();
        failure
    }

    /// Run to the end: how it ended, and what it wrote to both streams.
    pub fn finish(self) -> (ExitRecord, String) {
        let running = self.start();
        let record = running.wait();
        (record, running.output())
    }
}

impl Running {
    pub fn state(&self) -> &State {
        match &self.said {
            Announcement::Started(state) => state,
            Announcement::Failed(failure) => panic!("{failure}"),
        }
    }

    pub fn live(&self) -> Option<Live> {
        Live::find(&self.bundle).unwrap()
    }

    /// Wait for the shim's end.
    pub fn gone(&self) {
        while let Some(live) = self.live() {
            ended(&live.shim_pidfd);
        }
    }

    pub fn wait(&self) -> ExitRecord {
        self.gone();
        container::exit_record(&self.bundle).unwrap().expect("an exit record")
    }

    pub fn output(&self) -> String {
        let from = logs::From::Offset(0);
        let [out, err] = logs::read_both(&self.bundle.log(), [from, from], 1 << 20).unwrap();
        String::from_utf8_lossy(&[out.bytes, err.bytes].concat()).into_owned()
    }

    /// Wait until the container has written `text`.
    pub fn wait_for(&self, text: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !self.output().contains(text) {
            assert!(std::time::Instant::now() < deadline, "no {text:?} in {:?}", self.output());
            std::thread::yield_now();
        }
    }
}

/// Wait for the end of a process.
pub fn ended(process: &OwnedFd) {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(30_000u16)), Ok(1), "it lives on");
}

pub fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
