//! Which seeds are played, and on how many threads.

use std::{ops::Range, sync::Mutex};

/// `SEED=N` runs one seed, `SEEDS=N` so many; else the usual number.
pub(super) fn seeds(usual: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => 0..count,
        (None, None) => 0..usual,
    }
}

/// Plays them on all of the machine's threads, until one fails. Returns that one, and what it says.
pub(super) fn play(
    seeds: Range<u64>,
    run: impl Fn(u64) -> Result<(), String> + Sync,
) -> Option<(u64, String)> {
    let (next, failed) = (Mutex::new(seeds), Mutex::new(None));
    let threads = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while failed.lock().unwrap().is_none()
                    && let Some(seed) = { next.lock().unwrap().next() }
                {
                    if let Err(text) = run(seed) {
                        failed.lock().unwrap().get_or_insert((seed, text));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}
