//! Waiting for the container's end.

use core::mem::MaybeUninit;

use crate::pump::Pump;
use crate::record::Record;
use crate::system;
use crate::{Waiter, Word};

/// How often to look where the kernel cannot tell.
const LOOK_MS: u32 = 50;

/// The children whose end matters. Beside them there may be a helper of the builder's, which is only taken off the
/// process table.
struct Children {
    builder: i32,
    builder_status: Option<i32>,
    init: Option<i32>,
    init_status: Option<i32>,
    /// Ended before it was known who is who.
    strangers: [(i32, i32); 4],
}

impl Children {
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = system::reap() {
            if pid == self.builder {
                self.builder_status = Some(status);
            } else if self.init == Some(pid) {
                self.init_status = Some(status);
            } else if let Some(free) = self.strangers.iter_mut().find(|(pid, _)| *pid == 0) {
                *free = (pid, status);
            }
        }
    }

    fn introduce(&mut self, init: i32) {
        self.init = Some(init);
        self.init_status = self.strangers.iter().find(|(pid, _)| *pid == init).map(|(_, status)| *status);
    }
}

pub(crate) fn run(waiter: &Waiter<'_>) -> u8 {
    system::set_name(c"covey-shim");
    let Ok(bundle) = system::open_dir(libc::AT_FDCWD, waiter.bundle) else { return 1 };
    let ends = system::child_ends();
    let [stdout, stderr] = waiter.output;
    let mut stdout = Pump::new(b"stdout", stdout, bundle.0);
    let mut stderr = Pump::new(b"stderr", stderr, bundle.0);
    let mut children = Children {
        builder: waiter.builder,
        builder_status: None,
        init: None,
        init_status: None,
        strangers: [(0, 0); 4],
    };

    let status = loop {
        // Before anything is waited for: a child may have ended before its end could be heard of.
        children.reap();
        if children.init.is_none()
            && let Some(word) = read_word(waiter.word)
        {
            stdout.bound(word.log_cap);
            stderr.bound(word.log_cap);
            children.introduce(word.init as i32);
        }
        // A stream's cap comes with the word, and its first byte after it.
        if children.init.is_some() {
            stdout.step();
            stderr.step();
        }
        match children.builder_status {
            Some(0) => match children.init_status {
                Some(status) => break status,
                None if children.init.is_none() => return 1,
                None => {}
            },
            // It has said so and cleaned up; or it was killed, and nobody will ever tell the container to go on.
            Some(_) => return give_up(&children),
            None => {}
        }
        let [word, stdout, stderr] = match children.init {
            None => [waiter.word, -1, -1],
            Some(_) => [-1, stdout.pipe(), stderr.pipe()],
        };
        let mut fds = [
            system::readable(word),
            system::readable(stdout),
            system::readable(stderr),
            system::readable(ends.as_ref().map_or(-1, |fd| fd.0)),
        ];
        if system::poll(&mut fds, ends.is_none().then_some(LOOK_MS)).is_err_and(|e| e != libc::EINTR) {
            system::sleep_ms(LOOK_MS);
        }
        if let Some(ends) = &ends {
            system::hear(ends);
        }
    };
    // Its writers are dead: what is in the pipes is all there will be.
    while stdout.step() {}
    while stderr.step() {}
    let lost = stdout.lost() + stderr.lost();
    let record = Record { status, finished_at_ms: system::now_ms(), log_bytes_lost: lost };
    for _ in 0..100 {
        if record.write(&bundle).is_ok() {
            return 0;
        }
        // Room was set aside; where that does not help (a disk that is gone), another second may.
        system::sleep_ms(10);
    }
    1
}

/// End what is left of an attempt. What does not die at once is the agent's to kill and some other parent's to reap.
fn give_up(children: &Children) -> u8 {
    if let (Some(init), None) = (children.init, children.init_status) {
        system::kill(init, libc::SIGKILL);
    }
    while let Ok(Some(_)) = system::reap() {}
    1
}

fn read_word(pipe: i32) -> Option<Word> {
    let mut buffer = [MaybeUninit::uninit(); 16];
    let bytes = system::read(pipe, &mut buffer).ok()?;
    let mut whole = [0; 16];
    if bytes.len() != whole.len() {
        return None;
    }
    for (to, from) in whole.iter_mut().zip(bytes) {
        *to = *from;
    }
    Some(Word::from_bytes(whole))
}
