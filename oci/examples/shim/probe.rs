//! What tests let a container try: each argument is one attempt, answered by one line `NAME ok` or `NAME ERRNO`.

use std::io::Error;

pub(crate) fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["memory", mib] => drop(memory(mib.parse().unwrap_or(0))),
        ["hold", mib] => {
            let _held = memory(mib.parse().unwrap_or(0));
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
        ["threads", number] => threads(number.parse().unwrap_or(0)),
        ["fds"] => fds(),
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        _ => args.iter().for_each(|name| attempt(name)),
    }
}

fn attempt(name: &str) {
    const CLONE_NEWUSER: i64 = 0x1000_0000;
    const CLONE_NEWNS: i64 = 0x0002_0000;
    let none = std::ptr::null::<u8>();
    // SAFETY: every call either fails or changes nothing but this process and its children.
    let result = unsafe {
        match name {
            "keyctl" => libc::syscall(libc::SYS_keyctl, 0, 0, 0),
            "add_key" => {
                libc::syscall(libc::SYS_add_key, c"user".as_ptr(), c"x".as_ptr(), c"x".as_ptr(), 1, -3)
            }
            "bpf" => libc::syscall(libc::SYS_bpf, 0, none, 0),
            "unshare" => libc::syscall(libc::SYS_unshare, CLONE_NEWUSER),
            "setns" => libc::syscall(libc::SYS_setns, 0, 0),
            "clone-user" => clone(CLONE_NEWUSER),
            "clone-mount" => clone(CLONE_NEWNS),
            "fork" => clone(0),
            "clone3" => libc::syscall(libc::SYS_clone3, none, 0),
            "mount" => libc::syscall(
                libc::SYS_mount,
                c"tmpfs".as_ptr(),
                c"/tmp".as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                none,
            ),
            "fsopen" => libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0),
            "kexec" => libc::syscall(libc::SYS_kexec_load, 0, 0, none, 0),
            "reboot" => libc::syscall(libc::SYS_reboot, 0, 0, 0, none),
            "io_uring" => libc::syscall(libc::SYS_io_uring_setup, 1, none),
            "vsock" => libc::syscall(libc::SYS_socket, 40, libc::SOCK_STREAM, 0),
            "socket" => libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0),
            "unknown" => libc::syscall(9999),
            "mknod" => mknod(c"/tmp/disk", libc::S_IFBLK, libc::makedev(254, 0)),
            "mknod-null" => mknod(c"/tmp/null", libc::S_IFCHR, libc::makedev(1, 3)),
            "mkfifo" => mknod(c"/tmp/fifo", libc::S_IFIFO, 0),
            "sethostname" => libc::syscall(libc::SYS_sethostname, c"x".as_ptr(), 1),
            _ => -1,
        }
    };
    match result {
        -1 => println!("{name} {}", Error::last_os_error().raw_os_error().unwrap_or(0)),
        _ => println!("{name} ok"),
    }
}

unsafe fn clone(flags: i64) -> i64 {
    // SAFETY: without a stack of its own the child goes on here, as after fork, and ends at once.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone, flags | i64::from(libc::SIGCHLD), 0, 0, 0, 0);
        if pid == 0 {
            libc::_exit(0);
        }
        pid
    }
}

unsafe fn mknod(path: &std::ffi::CStr, kind: u32, device: u64) -> i64 {
    // SAFETY: the path is a C string.
    i64::from(unsafe { libc::mknod(path.as_ptr(), kind | 0o666, device) })
}

/// Use memory until there is none.
fn memory(mib: usize) -> Vec<Vec<u8>> {
    let mut held = Vec::new();
    for _ in 0..mib {
        held.push(vec![1u8; 1 << 20]);
    }
    println!("held {}", held.iter().map(|m| std::hint::black_box(m).len() >> 20).sum::<usize>());
    held
}

/// Fork until that is refused, then say how far it went.
fn threads(number: usize) {
    let mut made = 0;
    for _ in 0..number {
        // SAFETY: the child only waits to be killed.
        match unsafe { libc::fork() } {
            0 => loop {
                unsafe { libc::pause() };
            },
            -1 => break,
            _ => made += 1,
        }
    }
    println!("made {made}");
}

/// The open descriptors.
fn fds() {
    for fd in 0..256 {
        // SAFETY: asking changes nothing.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0 {
            println!("fd {fd}");
        }
    }
}
