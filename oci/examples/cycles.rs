//! What one container costs, for `covey-bench`: `cycles COVEY DIR`, with Debian's busybox as the image.
//!
//! The containers are started and removed as the agent does it, through a fork server of the covey binary. Beside that,
//! `DIR/peer` becomes a bundle of the same content for other runtimes. Each line on stdin is a request, answered by one:
//!
//! ```text
//! cycle       start /bin/true, see its end, remove it          microseconds, and microseconds of CPU of all processes
//! starts N    start N that sleep, two at a time, look at the    microseconds; PSS and page tables of all their shims
//!             shims, remove them                                in KiB
//! ```

use std::error::Error;
use std::fs;
use std::io::{BufRead as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci::bundle::{Announcement, Bundle, BundleConfig, State, VERSION};
use oci::cgroup::{Band, Limits, Tree};
use oci::container::{self, ForkServer, Stock};
use oci::network::{Namespace, Spares};
use oci::spec::{self, Host, SpecInput};
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, Spec};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(covey), Some(dir)) = (args.next(), args.next()) else { return Err("cycles COVEY DIR".into()) };
    let usage = own_cgroup()?;
    let node = Node::new(&covey, dir)?;
    node.write_peer()?;
    println!("ready");
    for (number, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["cycle"] => {
                let (begun, cpu) = (Instant::now(), usage.now()?);
                node.cycle(&format!("cycle-{number}"))?;
                let took = begun.elapsed().as_micros();
                println!("{took} {}", usage.now()? - cpu);
            }
            ["starts", count] => println!("{}", node.starts(count.parse()?)?),
            _ => return Err(format!("what is {line:?}?").into()),
        }
    }
    node.clear()
}

/// The CPU time of a cgroup and those below it.
struct Usage(PathBuf);

impl Usage {
    fn now(&self) -> Result<u64> {
        Ok(fs::read_to_string(&self.0)?.trim().parse::<u64>()? / 1000)
    }
}

/// Into a cgroup of our own, so that all CPU time of this process and what it starts is added up in one place.
fn own_cgroup() -> Result<Usage> {
    let dir = Path::new("/sys/fs/cgroup/cpuacct").join(format!("covey-cycles-{}", std::process::id()));
    fs::create_dir(&dir)?;
    fs::write(dir.join("cgroup.procs"), "0")?;
    Ok(Usage(dir.join("cpuacct.usage")))
}

struct Node {
    dir: PathBuf,
    layer: PathBuf,
    tree: Tree,
    server: ForkServer,
    spares: Spares,
    stock: Stock,
    host: Host,
}

impl Node {
    fn new(covey: &Path, dir: PathBuf) -> Result<Node> {
        let layer = dir.join("layer");
        for sub in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            fs::create_dir_all(layer.join(sub))?;
        }
        fs::copy("/bin/busybox", layer.join("bin/true"))?;
        fs::hard_link(layer.join("bin/true"), layer.join("bin/sleep"))?;
        let (tree, _) = Tree::open(&format!("cycles-{}", std::process::id()));
        let server = ForkServer::start(covey, &tree)?;
        let stock = Stock::open(dir.join("stock"))?;
        Ok(Node { dir, layer, tree, server, stock, spares: Spares::default(), host: Host::detect() })
    }

    /// With a network of its own, without user namespace and filter, as the other runtimes' bundle.
    fn spec(&self, args: &[&str], network: Option<&Namespace>) -> Result<Spec> {
        let input = SpecInput {
            args: args.iter().map(|arg| arg.to_string()).collect(),
            env: Vec::new(),
            cwd: "/".into(),
            hostname: "bench".into(),
            idmap: None,
            read_only: false,
            oom_score_adj: 100,
            network: network.map(Namespace::path),
            etc: Vec::new(),
            capabilities: Vec::new(),
            tmpfs: Vec::new(),
            binds: Vec::new(),
        };
        let mut spec = spec::unfiltered(&input, &self.host)?;
        if let (None, Some(linux)) = (network, spec.linux_mut()) {
            let network = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).build()?;
            let namespaces = linux.namespaces().clone().unwrap_or_default();
            linux.set_namespaces(Some(namespaces.into_iter().chain([network]).collect()));
        }
        Ok(spec)
    }

    fn limits() -> Limits {
        Limits { cpu_milli: Some(1000), memory_bytes: Some(64 << 20), pids: Some(100), ..Limits::default() }
    }

    fn start(&self, name: &str, args: &[&str]) -> Result<(Bundle, State)> {
        // As an agent does it: one that is ready, and another is made behind it.
        let network = self.spares.take()?;
        let config = BundleConfig {
            version: VERSION,
            run: name.into(),
            layers: vec![self.layer.clone()],
            idmap: None,
            user: None,
            cgroup: self.tree.placement(Band::Batch, name),
            limits: Self::limits(),
            log_cap_bytes: 1 << 20,
            network: None,
            binds: Vec::new(),
            project: None,
        };
        let bundle = self.stock.create(self.dir.join(name), &config, &self.spec(args, Some(&network))?)?;
        let mut said = Vec::new();
        let mut announcement = self.server.spawn(bundle.dir(), &config.cgroup)?;
        self.spares.refill()?;
        announcement.read_to_end(&mut said)?;
        match container::parse_announcement(bundle.dir(), &said)? {
            Announcement::Started(state) => Ok((bundle, state)),
            Announcement::Failed(failure) => Err(failure.into()),
        }
    }

    fn cycle(&self, name: &str) -> Result<()> {
        let (bundle, state) = self.start(name, &["/bin/true"])?;
        if let Some(shim) = state.shim.hold()? {
            poll(&mut [PollFd::new(shim.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        }
        let record = container::exit_record(&bundle)?.ok_or("no exit record")?;
        if record.code != Some(0) {
            return Err(format!("{record:?}").into());
        }
        Ok(container::recycle(&bundle, &self.stock)?)
    }

    fn starts(&self, count: usize) -> Result<String> {
        let half = |thread: usize| -> std::result::Result<Vec<_>, String> {
            let names = (0..count).filter(|number| number % 2 == thread);
            let start = |number| self.start(&format!("start-{number}"), &["/bin/sleep", "1000"]);
            names.map(start).collect::<Result<Vec<_>>>().map_err(|error| error.to_string())
        };
        let begun = Instant::now();
        let halves = std::thread::scope(|threads| {
            let other = threads.spawn(|| half(1));
            (half(0), other.join())
        });
        let took = begun.elapsed().as_micros();
        let mut started = halves.0?;
        started.extend(halves.1.map_err(|_| "a thread panicked")??);
        let (mut pss, mut tables) = (0, 0);
        for (_, state) in &started {
            pss += kib(&format!("/proc/{}/smaps_rollup", state.shim.pid), "Pss:")?;
            tables += kib(&format!("/proc/{}/status", state.shim.pid), "VmPTE:")?;
        }
        for (bundle, _) in &started {
            container::recycle(bundle, &self.stock)?;
        }
        Ok(format!("{took} {pss} {tables}"))
    }

    /// `DIR/peer`: the same without what is covey's own way: an overlay, its cgroups, the host's `/sys`.
    fn write_peer(&self) -> Result<()> {
        let peer = self.dir.join("peer");
        fs::create_dir(&peer)?;
        for (name, args) in [("true", &["/bin/true"][..]), ("sleep", &["/bin/sleep", "1000"])] {
            let mut spec = serde_json::to_value(self.spec(args, None)?)?;
            spec["root"]["path"] = self.layer.display().to_string().into();
            spec["linux"]["resources"] = serde_json::json!({
                "memory": { "limit": 64 << 20 }, "pids": { "limit": 100 },
                "cpu": { "shares": 1024, "quota": 100_000, "period": 100_000 },
                "devices": [{ "allow": false, "access": "rwm" }],
            });
            let mounts = spec["mounts"].as_array_mut().ok_or("a spec without mounts")?;
            for mount in mounts.iter_mut().filter(|mount| mount["destination"] == "/sys") {
                *mount = serde_json::json!({
                    "destination": "/sys", "type": "sysfs", "source": "sysfs",
                    "options": ["nosuid", "noexec", "nodev", "ro"],
                });
            }
            fs::create_dir(peer.join(name))?;
            fs::write(peer.join(name).join("config.json"), spec.to_string())?;
        }
        Ok(())
    }

    fn clear(self) -> Result<()> {
        drop(self.server);
        self.tree.clear()?;
        Ok(())
    }
}

fn kib(path: &str, key: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let number =
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok());
    number.ok_or_else(|| format!("{path} has no {key}").into())
}
