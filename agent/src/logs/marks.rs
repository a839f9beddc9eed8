//! When a log had got how far, noted every few seconds beside its segments: for `logs --since`. What a program writes has
//! no times of its own, and nobody looks at its bytes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use oci::{
    bundle::Stream,
    logs::{self, From},
};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use crate::{clock, daemon::inbox::NodeHandle, event::RunId};

/// Beside the segments: lines of wall time (milliseconds since 1970) and the end of both streams then.
const FILE: &str = "times";
/// Between two looks.
const EVERY: Duration = Duration::from_secs(3);
/// Of a file: beyond that every second mark goes.
const MOST: u64 = 64 << 10;

/// The ends of a log's two streams.
type Ends = [u64; 2];

/// Notes it for what runs here, until the node's loop ends.
pub(crate) async fn keep(bundles: PathBuf, node: NodeHandle) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: BTreeMap<RunId, Ends> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let Some(running) = node.read(|core| core.all_running().collect::<Vec<_>>()).await else { return };
        let (bundles, before) = (bundles.clone(), std::mem::take(&mut seen));
        let noted = spawn_blocking(move || {
            let now = clock::now().wall_ms;
            let dir = |run: &RunId| bundles.join(run.to_string()).join("log");
            running.iter().map(|run| (*run, note(&dir(run), before.get(run), now))).collect()
        });
        let Ok(noted) = noted.await else { return };
        seen = noted;
    }
}

/// A log that cannot be noted is only harder to find one's way in.
fn note(dir: &Path, before: Option<&Ends>, now_ms: u64) -> Ends {
    let Ok(ends) = logs::ends(dir) else { return before.copied().unwrap_or_default() };
    if before != Some(&ends) {
        let _ = add(&dir.join(FILE), now_ms, ends);
    }
    ends
}

fn add(path: &Path, now_ms: u64, [out, err]: Ends) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    writeln!(file, "{now_ms} {out} {err}")?;
    if file.metadata()?.len() <= MOST {
        return Ok(());
    }
    let text = fs::read_to_string(path)?;
    let half: String = text.lines().step_by(2).flat_map(|line| [line, "\n"]).collect();
    let aside = path.with_extension("new");
    fs::write(&aside, half)?;
    fs::rename(aside, path)
}

/// Where to begin with what was written since then, or with `start` if that is later. What was written a few seconds before
/// may be there too, never less.
pub(crate) fn since(dir: &Path, since_ms: u64, start: From) -> [From; 2] {
    let text = fs::read_to_string(dir.join(FILE)).unwrap_or_default();
    let marks = text.lines().filter_map(|line| {
        let mut numbers = line.split(' ').map(|number| number.parse::<u64>().ok());
        Some((numbers.next()??, [numbers.next()??, numbers.next()??]))
    });
    let ends = marks.take_while(|(at_ms, _)| *at_ms <= since_ms).last().map_or([0; 2], |(_, ends)| ends);
    let later = |stream, end: u64| match start {
        From::Offset(offset) => From::Offset(offset.max(end)),
        // Where the lines begin.
        From::Tail(_) => match logs::read(dir, stream, start, 0) {
            Ok(chunk) => From::Offset(chunk.offset.max(end)),
            Err(_) => From::Offset(end),
        },
    };
    [later(Stream::Stdout, ends[0]), later(Stream::Stderr, ends[1])]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_time_leads_to_where_the_log_was_then() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let grow = |stream: Stream, text: &str| {
            let mut file =
                File::options().create(true).append(true).open(dir.join(stream.segment(0))).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        let mut seen = note(dir, None, 1_000);
        grow(Stream::Stdout, "one\n");
        seen = note(dir, Some(&seen), 2_000);
        grow(Stream::Stdout, "two\nthree\n");
        grow(Stream::Stderr, "oh\n");
        seen = note(dir, Some(&seen), 3_000);
        // Nothing new: nothing noted.
        assert_eq!(note(dir, Some(&seen), 4_000), [14, 3]);
        assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap(), "1000 0 0\n2000 4 0\n3000 14 3\n");

        let at = |ms, start| since(dir, ms, start);
        let from = |out, err| [From::Offset(out), From::Offset(err)];
        let all = From::Offset(0);
        assert_eq!(at(500, all), from(0, 0), "before all marks");
        assert_eq!(at(2_500, all), from(4, 0));
        assert_eq!(at(9_000, all), from(14, 3), "nothing since");
        assert_eq!(at(2_500, From::Tail(1)), from(8, 0), "the last line is later");
        assert_eq!(at(2_500, From::Tail(100)), from(4, 0));
        assert_eq!(since(Path::new("/no/such"), 5, all), from(0, 0));
    }

    #[test]
    fn marks_stay_few() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(FILE);
        for n in 0..10_000 {
            add(&path, 1_790_000_000_000 + n, [n * 1_000_000, 0]).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() as u64 <= MOST + 100);
        assert!(text.starts_with("1790000000000 0 0\n") && text.ends_with(" 9999000000 0\n"));
    }
}
