//! A deterministic executor with virtual time.
//!
//! Chance picks which of the ready tasks goes on. Timers go off one at a time, and all that follows is done before the
//! next one does: so a `select!` over a timer and a channel never finds both ready, and tokio's own random choice between
//! branches (which no seed reaches) has nothing to choose.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

/// Tasks that die together: a node, from its start to its crash. 0 is the run itself.
pub(crate) type Group = u64;
type TaskId = u64;
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Ready = Arc<Mutex<Vec<TaskId>>>;

/// Virtual time does not begin at 0: code subtracts timeouts from now.
const BEGINNING: Duration = Duration::from_secs(1_000_000);

struct World {
    now: Cell<u64>,
    chance: Cell<u64>,
    trace: Cell<u64>,
    group: Cell<Group>,
    next: Cell<u64>,
    ready: Ready,
    tasks: RefCell<BTreeMap<TaskId, Entry>>,
    timers: RefCell<BinaryHeap<Reverse<(u64, u64, TimerRef)>>>,
}

struct Entry {
    group: Group,
    waker: Arc<TaskWaker>,
    /// None while it is polled.
    task: Option<Task>,
}

thread_local! {
    static WORLD: RefCell<Option<std::rc::Rc<World>>> = const { RefCell::new(None) };
}

fn world() -> std::rc::Rc<World> {
    WORLD.with_borrow(Clone::clone).expect("this is called within a seeded run only")
}

struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap().push(self.id);
        }
    }
}

/// Prints the seed of a run that panics.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} failed; run it alone with SEED={}", self.0, self.0);
        }
    }
}

/// Runs `main` to its end, with all that it starts. Returns what it returned, and a hash of all that happened.
pub(crate) fn run<T: Send + 'static>(seed: u64, main: impl Future<Output = T> + Send + 'static) -> (T, u64) {
    let _seed = Seed(seed);
    let world = std::rc::Rc::new(World {
        now: Cell::new(u64::try_from(BEGINNING.as_nanos()).unwrap()),
        chance: Cell::new(seed),
        trace: Cell::new(0xcbf2_9ce4_8422_2325),
        group: Cell::new(0),
        next: Cell::new(0),
        ready: Ready::default(),
        tasks: RefCell::default(),
        timers: RefCell::default(),
    });
    WORLD.set(Some(world.clone()));
    let result = Arc::new(Mutex::new(None));
    let place = result.clone();
    spawn_in(0, async move { *place.lock().unwrap() = Some(main.await) });
    let result = loop {
        while let Some(id) = world.pick() {
            world.poll(id);
        }
        if let Some(result) = result.lock().unwrap().take() {
            break result;
        }
        world.next_timer();
    };
    // What their destructors do still belongs to the run.
    let tasks = std::mem::take(&mut *world.tasks.borrow_mut());
    drop(tasks);
    WORLD.set(None);
    (result, world.trace.get())
}

impl World {
    fn pick(&self) -> Option<TaskId> {
        let mut ready = self.ready.lock().unwrap();
        let count = ready.len() as u64;
        (count > 0).then(|| ready.swap_remove(if count == 1 { 0 } else { self.draw() % count } as usize))
    }

    fn poll(&self, id: TaskId) {
        let (group, waker, mut task) = match self.tasks.borrow_mut().get_mut(&id) {
            // Killed, or it ended.
            None => return,
            Some(entry) => {
                (entry.group, entry.waker.clone(), entry.task.take().expect("polled one at a time"))
            }
        };
        self.note(id);
        waker.queued.store(false, Ordering::Relaxed);
        let outer = self.group.replace(group);
        let polled = task.as_mut().poll(&mut Context::from_waker(&Waker::from(waker)));
        self.group.set(outer);
        let ended = {
            let mut tasks = self.tasks.borrow_mut();
            if polled.is_ready() {
                tasks.remove(&id);
                Some(task)
            } else if let Some(entry) = tasks.get_mut(&id) {
                entry.task = Some(task);
                None
            } else {
                // It killed its own group.
                Some(task)
            }
        };
        // Only now: destructors may spawn.
        drop(ended);
    }

    fn next_timer(&self) {
        let timer = loop {
            let Reverse((deadline, _, TimerRef(timer))) = self
                .timers
                .borrow_mut()
                .pop()
                .expect("all tasks wait for each other, and nothing else will happen");
            if !timer.over.swap(true, Ordering::Relaxed) {
                self.now.set(self.now.get().max(deadline));
                break timer;
            }
        };
        if let Some(waker) = timer.waker.lock().unwrap().take() {
            waker.wake();
        }
    }

    fn note(&self, fact: u64) {
        for word in [self.now.get(), fact] {
            // FNV-1a, a word at a time.
            self.trace.set((self.trace.get() ^ word).wrapping_mul(0x0100_0000_01b3));
        }
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    fn draw(&self) -> u64 {
        self.chance.set(self.chance.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let z = self.chance.get();
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fresh(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }
}

/// Starts a task in the group of the one that runs.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    spawn_in(world().group.get(), task);
}

pub(crate) fn spawn_in(group: Group, task: impl Future<Output = ()> + Send + 'static) {
    let world = world();
    let id = world.fresh();
    let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: world.ready.clone() });
    world.tasks.borrow_mut().insert(id, Entry { group, waker: waker.clone(), task: Some(Box::pin(task)) });
    waker.wake();
}

/// Ends all tasks of a group where they stand.
pub(crate) fn kill(group: Group) {
    let world = world();
    let killed: Vec<_> = world.tasks.borrow_mut().extract_if(.., |_, entry| entry.group == group).collect();
    drop(killed);
}

/// Virtual nanoseconds since long ago.
pub(crate) fn now() -> u64 {
    world().now.get()
}

/// A random number, from the seed.
pub(crate) fn draw() -> u64 {
    world().draw()
}

/// A random number of a range.
pub(crate) fn draw_from(range: std::ops::Range<u64>) -> u64 {
    range.start + draw() % (range.end - range.start)
}

/// Whether something happens that happens so many times out of a thousand.
pub(crate) fn happens(per_mille: u64) -> bool {
    draw() % 1000 < per_mille
}

#[derive(Debug, Default)]
struct Timer {
    /// Went off, or nobody waits any more.
    over: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Orders by nothing: deadline and number come before it.
struct TimerRef(Arc<Timer>);

impl PartialEq for TimerRef {
    fn eq(&self, _: &TimerRef) -> bool {
        true
    }
}
impl Eq for TimerRef {}
impl PartialOrd for TimerRef {
    fn partial_cmp(&self, other: &TimerRef) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for TimerRef {
    fn cmp(&self, _: &TimerRef) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// Ready once its timer went off; not merely once its time has come.
#[derive(Debug)]
pub(crate) struct Sleep(Arc<Timer>);

pub(crate) fn sleep_until(deadline: u64) -> Sleep {
    let (world, timer) = (world(), Arc::new(Timer::default()));
    let entry = (deadline, world.fresh(), TimerRef(timer.clone()));
    world.timers.borrow_mut().push(Reverse(entry));
    Sleep(timer)
}

pub(crate) fn sleep(duration: Duration) -> Sleep {
    sleep_until(now().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0.over.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        *self.0.waker.lock().unwrap() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}
