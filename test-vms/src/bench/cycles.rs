//! Many starts and stops, and what they leave over: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use test_vms::Result;
use test_vms::node::Node;

use crate::figures::{show_at_most, show_holds};
use crate::usage::{own_mib, rss_mib};

/// Cycles before the first look: what is made once and kept is made then.
const WARM_UP: usize = 10;
/// Ended runs whose logs an agent keeps, for `covey logs --previous`, and whose files, for `covey cp`.
const KEPT: [(&str, usize); 2] = [("logs", 200), ("left", 20)];
/// The agent's own memory is looked at after so many, and at the end; it may have grown by so much between. By then what is
/// bounded is full: 10,000 events, 4,096 entries of the ledger, a snapshot of it each 5,000, and what databases cache of them.
const EARLY: usize = 3000;
const GROWTH_MIB: f64 = 4.0;
const JOB: &str = "name = \"cycle\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n\
                   command = [\"/hello\", \"--listen\", \":${PORT_http}\"]\n";

pub(crate) fn run(count: usize) -> Result<bool> {
    let node = Node::start()?;
    for _ in 0..WARM_UP {
        cycle(&node)?;
    }
    let before = Left::of(&node);
    node.run("cycle", JOB)?;
    let running = Left::of(&node);
    node.stop("cycle")?;
    let begun = Instant::now();
    let mut early = None;
    for done in 1..count {
        if done == EARLY {
            early = Some(own_mib(node.agent_pid())?);
        }
        cycle(&node)?;
    }
    let late = own_mib(node.agent_pid())?;
    println!("  {:28} {:>7.1} MiB", "VmRSS of the agent", rss_mib(node.agent_pid())?);
    let each = begun.elapsed() / u32::try_from(count.max(2) - 1).unwrap_or(1);
    let after = Left::of(&node);
    println!("  {} each, seen from the command line", crate::figures::millis(each));
    // Else the comparison would look where nothing ever is.
    let sees = running.processes > before.processes && running.cgroups.len() > before.cgroups.len();
    let holds = show_holds("a running task is seen in the cgroups", sees, "")
        & show_same("mounts", &before.mounts, &after.mounts)
        & show_same("cgroups", &before.cgroups, &after.cgroups)
        & show_holds(
            "no process is left",
            after.processes <= before.processes,
            &format!("{} → {}", before.processes, after.processes),
        )
        & show_holds(
            "no descriptor of the agent is left",
            after.descriptors <= before.descriptors,
            &format!("{} → {}", before.descriptors, after.descriptors),
        )
        & show_same("files in DIR, but for kept ones", &before.files, &after.files)
        & KEPT.iter().enumerate().fold(true, |so_far, (n, (what, most))| {
            let detail = format!("{} → {}, at most {most}", before.kept[n], after.kept[n]);
            so_far & show_holds(&format!("{what} of ended runs are bounded"), after.kept[n] <= *most, &detail)
        });
    let Some(early) = early else {
        return Ok(holds);
    };
    println!("  {:28} {early:>7.1} MiB   after {EARLY} cycles", "RssAnon of the agent");
    Ok(holds & show_at_most(&format!("after {count}"), late, early + GROWTH_MIB, "MiB"))
}

fn cycle(node: &Node) -> Result<()> {
    node.run("cycle", JOB)?;
    node.stop("cycle")
}

/// Everything that a container could leave behind.
struct Left {
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    files: BTreeSet<String>,
    kept: [usize; KEPT.len()],
    processes: usize,
    descriptors: usize,
}

impl Left {
    fn of(node: &Node) -> Self {
        let mut files = BTreeSet::new();
        walk(&node.data(), &mut files);
        let kept = KEPT.map(|(name, _)| node.data().join(name));
        files.retain(|path| !kept.iter().any(|kept| Path::new(path).starts_with(kept)));
        let agent = node.agent_pid();
        Self {
            mounts: mounts("/proc/self/mounts", node)
                .union(&mounts(&format!("/proc/{agent}/mounts"), node))
                .cloned()
                .collect(),
            cgroups: node.cgroups.below().iter().map(|path| path.display().to_string()).collect(),
            files,
            kept: kept.map(|kept| fs::read_dir(kept).map_or(0, Iterator::count)),
            processes: node.cgroups.processes().len(),
            descriptors: fs::read_dir(format!("/proc/{agent}/fd")).map_or(0, Iterator::count),
        }
    }
}

/// The mounts of a namespace that have to do with the node; others come and go beside it.
fn mounts(path: &str, node: &Node) -> BTreeSet<String> {
    let mine = node.scratch().display().to_string();
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| line.contains(&mine)).map(str::to_owned).collect()
}

fn show_same(what: &str, before: &BTreeSet<String>, after: &BTreeSet<String>) -> bool {
    let new: Vec<_> = after.difference(before).take(3).cloned().collect();
    let detail = format!("{} → {} {}", before.len(), after.len(), new.join(" "));
    show_holds(&format!("no more {what} than before"), after.len() <= before.len(), detail.trim_end())
}

fn walk(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        found.insert(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        }
    }
}
