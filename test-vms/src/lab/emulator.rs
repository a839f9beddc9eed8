//! A host that is a virtual machine. Its emulator, and the program that lends it this machine's files, are processes of
//! the host's cgroup and network, so all that is true of other hosts is true of it: power off is their end at one moment,
//! and its cable is the host's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit};

use super::host::Machine;
use super::space::spawn_detached;
use super::state::{Files, Host, Limits};
use super::{Error, Result, network, wait};
use crate::error::{output_of, tail};
use crate::guest::{self, Answer, Process, Request};
use crate::vm::disk;
use crate::vm::kit::Kit;

/// The cgroup of the emulator, below that of the host.
const EMULATOR: &str = "emulator";
/// How long a machine may take until it answers, on one that is busy with others: it takes 5 s of a CPU.
pub(super) const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at something inside of an emulated machine: a look takes a tenth of it.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// What an emulator takes beside its guest's memory, at most; a third of it is translated code, which it else lets grow to 1 GiB.
pub(super) const OVERHEAD: u64 = 768 << 20;
/// What the tag is to a guest that an export is to others.
const TAG: &str = "machine";
/// Lines of a console that an error shows.
const LINES: usize = 30;

/// The root, the disk and the network, then what containers need, which a stock system would load when it is asked for.
const MODULES: [&str; 24] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "fuse",
    "virtiofs",
    "quota_v2",
    "overlay",
    "loop",
    "tun",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_redir",
    "nft_ct",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_limit",
    "nft_numgen",
    "nft_log",
    "sch_netem",
    "sch_tbf",
];

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod $module || echo "cannot load $module"; done
/bin/busybox mount -t virtiofs machine /root || echo "cannot mount the machine's files"
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root "$COVEY_HOST/lab" guest "$COVEY_HOST"
"#;

/// What machines of a lab boot from, made once.
pub(super) fn prepare(files: &Files, tool: &Path, tell: fn(&str)) -> Result<()> {
    let prepared = || -> crate::Result<()> {
        if !tool.is_file() {
            return Err(crate::Error::Missing(format!(
                "no covey-lab at {}, which virtual machines run as their first process: build it with `make build`",
                tool.display()
            )));
        }
        if !Kit::is_here() {
            tell("fetching Debian's emulator and kernel, once");
        }
        let kit = Kit::get()?;
        let (to, new) = (files.initramfs(), files.initramfs().with_extension("new"));
        if !to.exists() {
            disk::initramfs(&kit, &MODULES, INIT, &new)?;
            fs::rename(&new, &to).map_err(crate::Error::file("make", &to))?;
        }
        Ok(())
    };
    prepared().map_err(Error::step("prepare virtual machines"))
}

/// A disk as a machine has it that may lose power: with a journal, and with quotas for projects.
pub(super) fn disk(path: &Path) -> crate::Result<()> {
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-m", "0", "-O", "quota,project"]);
    mke2fs.args(["-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,quotatype=prjquota"]);
    output_of(mke2fs.arg(path)).map(drop)
}

impl Machine {
    /// Starts the emulator of a host that has its cable, and returns when the guest answers.
    pub(super) fn emulate(&self, files: &Files, host: &Host, limits: Limits, tool: &Path) -> Result<()> {
        let emulate = || -> crate::Result<()> {
            let settings = guest::Settings {
                name: self.name.clone(),
                addr: host.addr,
                data: self.data(),
                names: files.names(),
            };
            let path = self.dir.join(guest::SETTINGS);
            let text = serde_json::to_vec(&settings)
                .map_err(|why| crate::Error::file("write", &path)(why.into()))?;
            fs::write(&path, text).map_err(crate::Error::file("write", &path))?;
            let link = self.dir.join("lab");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(tool, &link).map_err(crate::Error::file("make", &link))?;

            let kit = Kit::get()?;
            let socket = self.dir.join("files.sock");
            self.lend_files(&kit, &socket)?;
            self.start_emulator(&kit, files, limits, &socket)
        };
        emulate().map_err(Error::step(format!("power host `{}` on", self.name)))?;
        self.guest_answers()
    }

    /// This machine's files for the guest, as hosts that are namespaces have them.
    fn lend_files(&self, kit: &Kit, socket: &Path) -> crate::Result<()> {
        let _ = fs::remove_file(socket);
        // Listening before it is started, so that nobody has to wait for it.
        let listener =
            OwnedFd::from(UnixListener::bind(socket).map_err(crate::Error::file("listen on", socket))?);
        let (_, files) = getrlimit(Resource::RLIMIT_NOFILE)
            .map_err(|why| crate::Error::file("read the limits of", "this process")(why.into()))?;
        let mut lends = self.in_space(kit.program("usr/lib/qemu/virtiofsd"))?;
        lends
            .arg(format!("--fd={}", listener.as_raw_fd()))
            // It takes a descriptor for each file that the guest knows of.
            .arg(format!("--rlimit-nofile={}", files.min(1_000_000)))
            .args(["-f", "-o", "source=/", "-o", "sandbox=chroot", "-o", "xattr", "-o", "log_level=warn"])
            // Programs stay in the guest's memory; what changes on this machine is seen there half a second later.
            .args(["-o", "cache=always", "-o", "timeout=0.5"]);
        // SAFETY: one system call; the descriptor lives until the child has been made.
        unsafe {
            let fd = listener.as_raw_fd();
            lends.pre_exec(move || Ok(fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)?));
        }
        self.run(lends, "files.log")
    }

    fn start_emulator(&self, kit: &Kit, files: &Files, limits: Limits, socket: &Path) -> crate::Result<()> {
        let (cpus, memory) = (limits.cpu_milli.div_ceil(1000).max(1), limits.memory_bytes >> 20);
        let [.., a, b] = super::state::number(&self.name).unwrap_or_default().to_be_bytes();
        let card = |id: &str, tap: &str, mac: String| {
            // Without a boot ROM: it boots from no network.
            let card = format!("virtio-net-pci,netdev={id},mac={mac},romfile=");
            [
                "-netdev".to_owned(),
                format!("tap,id={id},ifname={tap},script=no,downscript=no"),
                "-device".to_owned(),
                card,
            ]
        };
        let mut qemu = self.in_space(kit.qemu())?;
        qemu.args(["-name", &format!("covey-lab-{}", self.name)])
            // With a thread for each emulated CPU the guest sometimes stands still for ever.
            .args([
                "-M",
                "pc,memory-backend=memory",
                "-accel",
                "tcg,thread=single,tb-size=256",
                "-cpu",
                "max",
            ])
            .args(["-smp", &cpus.to_string(), "-m", &format!("{memory}M")])
            .args(["-object", &format!("memory-backend-memfd,id=memory,size={memory}M,share=on")])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&kit.kernel)
            .arg("-initrd")
            .arg(files.initramfs())
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet panic=-1 tsc=reliable random.trust_cpu=on mitigations=off {}={}",
                guest::VARIABLE,
                self.dir.display()
            ))
            // What the guest has written is in the file at once, and what it has not is lost with it: to flush would only
            // help against a loss of power of this machine.
            .args([
                "-drive",
                &format!("file={},format=raw,if=virtio,cache=unsafe", self.dir.join("disk").display()),
            ])
            .args(["-chardev", &format!("socket,id=files,path={}", socket.display())])
            .args(["-device", &format!("vhost-user-fs-pci,chardev=files,tag={TAG},queue-size=1024")])
            .args(card("lab", network::TAP, network::mac(a, b)))
            .args(card("cable", network::CABLE, format!("{}:{a:02x}:{b:02x}", guest::CABLE)))
            .args(["-chardev", &format!("file,id=console,path={},append=on", self.console().display())])
            .args(["-serial", "chardev:console"]);
        self.run(qemu, "emulator.log")
    }

    /// A command in the namespaces and the cgroup of the emulator.
    fn in_space(&self, like: Command) -> crate::Result<Command> {
        let mut command = self.space.command(like.get_program(), Some(EMULATOR))?;
        command.args(like.get_args()).current_dir("/");
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ok(command)
    }

    fn run(&self, mut command: Command, log: &str) -> crate::Result<()> {
        let log = self.dir.join(log);
        let open =
            || File::options().create(true).append(true).open(&log).map_err(crate::Error::file("open", &log));
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?);
        spawn_detached(&mut command)
    }

    fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    fn guest_answers(&self) -> Result<()> {
        let what = format!("the virtual machine `{}` answers", self.name);
        wait::until(what, PATIENCE, PAUSE, || {
            if self.cgroups.below_named(EMULATOR).processes().len() < 2 {
                return Err(self.emulator_ended());
            }
            Ok(self.guest_processes().map(drop).map_err(|why| {
                let console = fs::read_to_string(self.console()).unwrap_or_default();
                format!("{why}; its console: {}", tail(&console, LINES))
            }))
        })
    }

    fn emulator_ended(&self) -> Error {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        let console =
            ["files.log", "emulator.log", "console.log"].map(|name| tail(&read(name), LINES)).join("\n");
        Error::step(format!("power host `{}` on", self.name))(crate::Error::Stopped { console })
    }

    /// Asks the guest, through the network of its host.
    pub(super) fn ask(&self, request: &Request) -> Result<Answer> {
        let answer = self.space.inside(|| guest::ask(request));
        let answer =
            answer.and_then(|answer| answer.map_err(crate::Error::file("ask the guest in", &self.dir)));
        answer.map_err(Error::step(format!("reach host `{}`", self.name)))
    }

    /// All of the guest's processes that have a command line.
    pub(super) fn guest_processes(&self) -> Result<Vec<(i32, Vec<u8>)>> {
        match self.ask(&Request::Processes)? {
            Answer::Processes(found) => {
                Ok(found.into_iter().map(|Process { pid, line }| (pid, line)).collect())
            }
            other => Err(self.unexpected(&other)),
        }
    }

    /// Starts the agent with what is said in `like`, a command to be passed on.
    pub(super) fn start_in_guest(&self, agent: &Path, like: &Command) -> Result<()> {
        let args = like.get_args().skip_while(|arg| *arg != "agent").map(OsString::from);
        let argv = std::iter::once(agent.as_os_str().to_owned()).chain(args).collect();
        let env = guest::environment(like);
        match self.ask(&Request::Start { argv, env, log: self.log() })? {
            Answer::Yes => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Whether somebody accepts connections at a socket of the guest, or why not.
    pub(super) fn guest_connects(&self, socket: &str) -> Result<std::result::Result<(), String>> {
        match self.ask(&Request::Connects { socket: socket.into() })? {
            Answer::Yes => Ok(Ok(())),
            Answer::No(why) => Ok(Err(why)),
            other => Err(self.unexpected(&other)),
        }
    }

    fn unexpected(&self, answer: &Answer) -> Error {
        let why = match answer {
            Answer::No(why) => why.clone(),
            other => format!("it answered {other:?}"),
        };
        Error::step(format!("do that on host `{}`", self.name))(crate::Error::Missing(why))
    }
}
