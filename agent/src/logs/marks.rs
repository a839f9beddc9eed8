//! When a log had got how far, noted every few seconds beside its segments: for `logs --since`. What a program writes has
//! no times of its own, and nobody looks at its bytes. Who has used no CPU has written nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use oci::{
    bundle::Stream,
    logs::{self, From},
};

use crate::event::{Now, RunId};

/// Beside the segments: lines of wall time (milliseconds since 1970) and the end of both streams then.
const FILE: &str = "times";
/// Between two looks at a log, at least.
const EVERY_MS: u64 = 1_500;
/// Of a file: beyond that every second mark goes.
const MOST: u64 = 64 << 10;

/// The ends of a log's two streams.
type Ends = [u64; 2];

/// The last look at a run's log.
struct Seen {
    ends: Ends,
    /// CPU time that the run had used by then, if the host tells.
    cpu_us: Option<u64>,
    /// And that had been so at the look before: what it wrote last had time to get to the disk.
    quiet: bool,
    /// Monotonic.
    at_ms: u64,
}

/// What is known of the logs of runs.
#[derive(Default)]
pub(crate) struct Marks(BTreeMap<RunId, Seen>);

impl Marks {
    /// These alone are looked at from now on; the others are no more.
    pub(crate) fn begin(&mut self, runs: impl Iterator<Item = RunId>) {
        let there: BTreeSet<RunId> = runs.collect();
        self.0.retain(|run, _| there.contains(run));
    }

    /// Notes where the log in `dir` ends, if that can have changed.
    pub(crate) fn look(&mut self, run: RunId, dir: &Path, cpu_us: Option<u64>, now: Now) {
        let last = self.0.get(&run);
        let quiet = last.is_some_and(|last| cpu_us.is_some() && last.cpu_us == cpu_us);
        if last.is_some_and(|last| (quiet && last.quiet) || now.mono_ms < last.at_ms + EVERY_MS) {
            return;
        }
        let ends = note(dir, last.map(|last| &last.ends), now.wall_ms);
        self.0.insert(run, Seen { ends, cpu_us, quiet, at_ms: now.mono_ms });
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
    fn a_log_is_looked_at_until_what_its_run_wrote_last_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, run) = (temp.path(), "1.7.0-1.2.3-0".parse().unwrap());
        let segment = dir.join(Stream::Stdout.segment(0));
        let noted = || fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        let mut marks = Marks::default();
        let mut look = |cpu_us: Option<u64>, ms: u64| {
            marks.look(run, dir, cpu_us, Now { mono_ms: ms, wall_ms: ms });
        };
        look(Some(7), 10_000);
        fs::write(&segment, "one\n").unwrap();
        look(Some(8), 10_001);
        assert_eq!(noted(), "10000 0 0\n", "too soon");
        look(Some(8), 12_000);
        fs::write(&segment, "one\ntwo\n").unwrap();
        look(Some(8), 14_000);
        assert_eq!(noted(), "10000 0 0\n12000 4 0\n14000 8 0\n", "it was on its way");
        fs::write(&segment, "one\ntwo\nthree\n").unwrap();
        look(Some(8), 16_000);
        look(Some(9), 18_000);
        assert!(noted().ends_with("14000 8 0\n18000 14 0\n"), "{}", noted());
        // Where nobody tells of CPU time, all are looked at.
        fs::write(&segment, "").unwrap();
        look(None, 20_000);
        look(None, 22_000);
        fs::write(&segment, "1").unwrap();
        look(None, 24_000);
        assert!(noted().ends_with("24000 1 0\n"), "{}", noted());
        marks.begin([].into_iter());
        assert!(marks.0.is_empty());
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
