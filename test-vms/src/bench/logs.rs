//! A task that writes more than its logs may hold, as fast as it can: how fast that is, how much disk its logs take
//! meanwhile, and that what is kept is whole.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use test_vms::node::Node;
use test_vms::{Error, Result};

use crate::figures::{show_at_least, show_at_most, show_holds};

/// The argument by which `covey-bench` becomes the program that writes, so many GiB.
pub(crate) const FLAG: &str = "--write-log";

const MB_A_SECOND: f64 = 200.0;
/// Of the cap.
const PERCENT: f64 = 110.0;
const KEPT_PERCENT: f64 = 80.0;
const CAP: u64 = 16 << 20;
const LINE: usize = 100;
/// Lines in one write(2), as a program with a buffer does it.
const LINES: u64 = 600;
/// Between two looks at the disk: well below the time in which an eighth of the cap is written.
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn run(gib: usize) -> Result<bool> {
    let node = Node::start()?;
    let me = std::env::current_exe().map_err(|why| Error::Missing(format!("what is this program? {why}")))?;
    let name = me.file_name().unwrap_or_default().to_string_lossy();
    let job = format!(
        "name = \"loud\"\nkind = \"batch\"\n[task]\nimage = \"file://{}\"\ncpu = 1\nlogs = {CAP}\n\
         command = [\"/{name}\", \"{FLAG}\", \"{gib}\"]\n",
        me.display()
    );
    let file = node.job_file("loud", &job)?.display().to_string();
    node.json(&["run", &file])?;
    let (until, mut most, mut looks) = (Instant::now() + PATIENCE, 0, 0u64);
    loop {
        let task = node.json(&["task", "loud/0"])?;
        match task["state"].as_str() {
            Some("succeeded") => break,
            Some("failed") => return Err(Error::Missing(format!("the writer failed: {task}"))),
            _ if Instant::now() > until => return Err(Error::Missing(format!("it still writes: {task}"))),
            // The command line has a price too.
            _ => {
                for _ in 0..100 {
                    most = most.max(disk(&node.data().join("bundles")));
                    looks += 1;
                    sleep(LOOK);
                }
            }
        }
    }
    let output = node
        .covey(&["logs", "loud/0"])
        .output()
        .map_err(|why| Error::Missing(format!("cannot run covey logs: {why}")))?;
    let took = String::from_utf8_lossy(&output.stderr);
    let took: Duration = took
        .lines()
        .find_map(|line| line.strip_prefix("took ")?.parse().ok())
        .map(Duration::from_micros)
        .ok_or_else(|| Error::Missing(format!("the writer did not say what it took: {took}")))?;
    let bytes = lines(gib) * LINE as u64;
    println!("  {:.1} GB, a cap of {} MiB, {looks} looks at the disk", bytes as f64 / 1e9, CAP >> 20);
    let (kept, broken) = whole(&output.stdout, lines(gib));
    let percent = |bytes: u64| bytes as f64 * 100.0 / CAP as f64;
    Ok(show_at_least("written", bytes as f64 / 1e6 / took.as_secs_f64(), MB_A_SECOND, "MB/s")
        & show_at_most("disk, at most", percent(most), PERCENT, "% of the cap")
        & show_at_least("kept at the end", percent(kept as u64), KEPT_PERCENT, "% of the cap")
        & show_holds("what is kept is whole, and the newest", broken.is_none(), &broken.unwrap_or_default()))
}

/// What the task does.
pub(crate) fn write(gib: &str) -> io::Result<()> {
    let gib = gib.parse().map_err(io::Error::other)?;
    let begun = Instant::now();
    let mut out = io::stdout().lock();
    let (mut block, mut number) = (Vec::new(), 0);
    while number < lines(gib) {
        block.clear();
        for _ in 0..LINES {
            number += 1;
            let start = block.len();
            write!(block, "{number:020} ")?;
            block.resize(start + LINE - 1, b'.');
            block.push(b'\n');
        }
        out.write_all(&block)?;
    }
    eprintln!("took {}", begun.elapsed().as_micros());
    Ok(())
}

/// A whole number of blocks.
fn lines(gib: usize) -> u64 {
    ((gib as u64) << 30) / LINE as u64 / LINES * LINES
}

/// Blocks of all log files, in bytes.
fn disk(bundles: &Path) -> u64 {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    entries(bundles)
        .flat_map(|bundle| entries(&bundle.path().join("log")).collect::<Vec<_>>())
        .filter_map(|file| Some(file.metadata().ok()?.blocks() * 512))
        .sum()
}

/// How many bytes were kept; and where they are not what was written last, each line once and in order.
fn whole(text: &[u8], last: u64) -> (usize, Option<String>) {
    // The first line may have lost its beginning with the segment before.
    let mut lines = text.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty());
    let number = |line: &[u8]| std::str::from_utf8(line.get(..20)?).ok()?.parse::<u64>().ok();
    let mut before = None;
    let broken = lines.find_map(|line| {
        let (now, expected) = (number(line), before.map(|before: u64| before + 1));
        before = now;
        (now.is_none() || expected.is_some_and(|expected| now != Some(expected)) || line.len() != LINE - 1)
            .then(|| format!("{:?} where {expected:?} should be", String::from_utf8_lossy(line)))
    });
    let ends = before == Some(last);
    (text.len(), broken.or_else(|| (!ends).then(|| format!("it ends with line {before:?} of {last}"))))
}
