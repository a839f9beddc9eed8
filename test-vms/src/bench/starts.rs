//! Many containers that stay, started two at a time; and what waits for them.

use test_vms::{Error, Result};

use crate::figures::{show_at_least, show_at_most};
use crate::peers::Starter;

const A_SECOND: f64 = 180.0;
/// Of memory that is a waiting shim's own, or its share.
const SHIM_MIB: f64 = 0.05;

pub(crate) fn run(count: usize) -> Result<bool> {
    let scratch = scratch()?;
    let mut covey = Starter::covey(scratch.path())?;
    let mut crun = Starter::peer("crun", scratch.path());
    let (mut ours, mut theirs) = (0f64, 0f64);
    for _ in 0..3 {
        let a_second = |took: std::time::Duration| count as f64 / took.as_secs_f64();
        ours = ours.max(a_second(covey.starts(count)?.0));
        if let Ok(crun) = &mut crun {
            theirs = theirs.max(a_second(crun.starts(count)?.0));
        }
    }
    println!("  (the best of three, alternately)");
    match &crun {
        Ok(crun) => println!("  {:28} {theirs:>7.1} a second", crun.name),
        Err(why) => println!("  crun: not measured here ({why})"),
    }
    Ok(show_at_least("covey", ours, A_SECOND, "a second"))
}

pub(crate) fn memory(count: usize) -> Result<bool> {
    let scratch = scratch()?;
    let (_, pss, tables) = Starter::covey(scratch.path())?.starts(count)?;
    let each = |kib: u64| kib as f64 / 1024.0 / count as f64;
    println!("  {:28} {:>7.3} MiB", "page tables of each", each(tables));
    Ok(show_at_most("PSS of each", each(pss), SHIM_MIB, "MiB"))
}

fn scratch() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|why| Error::Missing(format!("cannot make a temporary directory: {why}")))
}
