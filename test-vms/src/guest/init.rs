//! The first process of a guest: makes a host of a bare kernel, as a service manager would, and outlives all others.

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::wait;
use nix::unistd::{ForkResult, fork, gettid, sethostname};
use serde::{Deserialize, Serialize};

use super::serve::serve;
use super::{CABLE, INSIDE, OUTSIDE};

/// The name of the settings' file, in the host's directory.
pub(crate) const SETTINGS: &str = "guest.json";
/// Where commands run, beside the agent.
pub(super) const EXEC: &str = "/sys/fs/cgroup/user.slice";
/// What systemd would make for the agent's unit, with `Delegate=yes`: the node's root.
const UNIT: &str = "/sys/fs/cgroup/system.slice/covey.service";
/// With `DelegateSubgroup=main` it would start the agent there: so it can while containers run in the unit.
pub(super) const AGENT: &str = "/sys/fs/cgroup/system.slice/covey.service/main";
const UNITS: &str = "/sys/fs/cgroup/system.slice";

/// What a guest has to know to become its host.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The host's.
    pub(crate) name: String,
    /// In the lab's network.
    pub(crate) addr: Ipv4Addr,
    /// Where the disk is mounted.
    pub(crate) data: PathBuf,
    /// The file with the names of the lab's hosts.
    pub(crate) names: PathBuf,
}

/// Becomes the first process of a guest whose files are in `host`. Returns only if that fails, which ends the machine.
pub fn init(host: &Path) -> ExitCode {
    if std::process::id() != 1 {
        eprintln!("covey-lab: this is for the first process of a virtual machine");
        return ExitCode::from(2);
    }
    match prepare(host).and_then(|settings| begin(&settings)) {
        Ok(never) => match never {},
        Err(why) => {
            // On the console, whose end the lab shows.
            println!("covey-lab: cannot start the guest: {why}");
            power_off()
        }
    }
}

enum Never {}

fn prepare(host: &Path) -> io::Result<Settings> {
    use MsFlags as Ms;
    let plain = Ms::MS_NOSUID | Ms::MS_NODEV | Ms::MS_NOEXEC;
    mounted("proc", "/proc", "proc", plain, "")?;
    mounted("sysfs", "/sys", "sysfs", plain, "")?;
    mounted("cgroup2", "/sys/fs/cgroup", "cgroup2", plain, "nsdelegate,memory_recursiveprot")?;
    mounted("tmpfs", "/run", "tmpfs", Ms::MS_NOSUID | Ms::MS_NODEV, "mode=755")?;
    for (directory, kind, options) in
        [("/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=666"), ("/dev/shm", "tmpfs", "mode=1777")]
    {
        fs::create_dir_all(directory)?;
        mounted(kind, directory, kind, Ms::MS_NOSUID | Ms::MS_NOEXEC, options)?;
    }
    let _ = std::os::unix::fs::symlink("/proc/self/fd", "/dev/fd");

    let settings = fs::read(host.join(SETTINGS)).map_err(at(&host.join(SETTINGS)))?;
    let settings: Settings = serde_json::from_slice(&settings)?;
    mounted("/dev/vda", &settings.data, "ext4", Ms::empty(), "prjquota")?;
    let none = None::<&str>;
    mount(Some(&settings.names), "/etc/hosts", none, Ms::MS_BIND, none)?;
    // As systemd has it: what is mounted later is seen in other mount namespaces.
    mount(none, "/", none, Ms::MS_REC | Ms::MS_SHARED, none)?;
    sethostname(&settings.name)?;

    for cgroup in [EXEC, UNITS, UNIT, AGENT] {
        fs::create_dir(cgroup).map_err(at(Path::new(cgroup)))?;
    }
    for parent in ["/sys/fs/cgroup", UNITS] {
        let file = Path::new(parent).join("cgroup.subtree_control");
        fs::write(&file, "+cpu +cpuset +io +memory +pids").map_err(at(&file))?;
    }
    handed_over(UNIT)?;
    Ok(settings)
}

/// Marks a cgroup as systemd marks those of units with `Delegate=yes`.
fn handed_over(cgroup: &str) -> io::Result<()> {
    let path = CString::new(cgroup)?;
    // SAFETY: the strings end with a zero, and the value is as long as is said.
    let set = unsafe { libc::setxattr(path.as_ptr(), c"user.delegate".as_ptr(), c"1".as_ptr().cast(), 1, 0) };
    if set == 0 { Ok(()) } else { Err(at(Path::new(cgroup))(io::Error::last_os_error())) }
}

/// The server in a process of its own; this one only reaps what has lost its parent.
fn begin(settings: &Settings) -> io::Result<Never> {
    // SAFETY: there is one thread.
    match unsafe { fork() }? {
        ForkResult::Child => {
            serve(&network(settings)?);
            Err(io::Error::other("the server has ended"))
        }
        ForkResult::Parent { child } => loop {
            match wait() {
                Ok(status) if status.pid() == Some(child) => {
                    break Err(io::Error::other("the server has ended"));
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(why) => break Err(why.into()),
            }
        },
    }
}

/// Gives the host its address, and the server the cable to the lab: in a network namespace that nobody else ever sees,
/// and which the listening socket alone keeps.
fn network(settings: &Settings) -> io::Result<TcpListener> {
    let mut cable = None;
    let mut card = None;
    for entry in fs::read_dir("/sys/class/net")?.flatten() {
        let mac = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        let name = entry.file_name().to_string_lossy().into_owned();
        match name.as_str() {
            "lo" => {}
            _ if mac.starts_with(CABLE) => cable = Some(name),
            _ => card = Some(name),
        }
    }
    let missing = || io::Error::other("it has not the two network cards that it was given");
    let (cable, card) = (cable.ok_or_else(missing)?, card.ok_or_else(missing)?);

    let (tell_thread, thread_is) = mpsc::channel();
    let (tell_moved, moved) = mpsc::channel::<()>();
    let link = cable.clone();
    let listens = thread::spawn(move || -> io::Result<TcpListener> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let _ = tell_thread.send(gettid());
        let _ = moved.recv();
        ip(&format!("addr add {} peer {OUTSIDE} dev {link}\nlink set {link} up\n", INSIDE.ip()))?;
        TcpListener::bind(INSIDE)
    });
    if let Ok(thread) = thread_is.recv() {
        ip(&format!("link set {cable} netns {thread}\n"))?;
        let _ = tell_moved.send(());
    }
    let mut wanted = String::from("link set lo up\n");
    if card != "eth0" {
        wanted.push_str(&format!("link set {card} name eth0\n"));
    }
    wanted.push_str(&format!("addr add {}/16 brd + dev eth0\nlink set eth0 up\n", settings.addr));
    ip(&wanted)?;
    listens.join().unwrap_or_else(|_| Err(io::Error::other("the thread that listens has panicked")))
}

fn ip(batch: &str) -> io::Result<()> {
    let mut ip = Command::new("ip");
    ip.args(["-batch", "-"]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::piped());
    let mut child = ip.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(batch.as_bytes());
    }
    match child.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("ip refused: {batch}"))),
    }
}

fn mounted(what: &str, on: impl AsRef<Path>, kind: &str, flags: MsFlags, options: &str) -> io::Result<()> {
    let on = on.as_ref();
    mount(Some(what), on, Some(kind), flags, Some(options)).map_err(|why| at(on)(why.into()))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |why| io::Error::other(format!("{}: {why}", path.display()))
}

fn power_off() -> ! {
    let _ = io::stdout().flush();
    // SAFETY: no memory is passed; nothing is left that could be lost.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    std::process::exit(1)
}
