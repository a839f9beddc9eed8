//! From the command to a running container, the image being there: `covey run --wait`, and what others call that.

use std::process::Command;
use std::time::{Duration, Instant};

use test_vms::Result;
use test_vms::node::Node;

use crate::figures::{Series, show};
use crate::peers::{Docker, Runtime, quiet};

const GOAL: Duration = Duration::from_millis(60);
/// Docker's on this kind of machine, for where it cannot be measured.
const DOCKER_MS: u64 = 127;

pub(crate) fn run(count: usize) -> Result<bool> {
    let node = Node::start()?;
    let docker = Docker::start();
    let runtimes: Vec<Runtime> = ["crun", "runc"]
        .into_iter()
        .filter_map(|program| match Runtime::new(program, node.scratch()) {
            Ok(runtime) => Some(runtime),
            Err(why) => {
                println!("  {program}: not measured here ({why})");
                None
            }
        })
        .collect();
    let mut all = vec![Series::new("covey run --wait".to_owned())];
    match &docker {
        Ok(docker) => all.push(Series::new(format!("{} run -d", docker.name))),
        Err(why) => println!("  docker: not measured here ({why}); known: {DOCKER_MS} ms"),
    }
    all.extend(runtimes.iter().map(|runtime| Series::new(format!("{} run -d", runtime.name))));

    for round in 0..count {
        let name = format!("s{round}");
        let mut takes = vec![covey(&node, &name)?];
        if let Ok(docker) = &docker {
            takes.push(timed(&mut docker.run(&name))?);
            docker.remove(&name)?;
        }
        for runtime in &runtimes {
            takes.push(timed(&mut runtime.run(&name)?)?);
            runtime.delete(&name)?;
        }
        all.iter_mut().zip(takes).for_each(|(series, took)| series.push(took));
    }
    println!("  (all: host network, own pid, mount, ipc and uts namespaces, limits for memory and CPU;");
    println!("   crun and runc alone: no daemon, no image, no user namespace, no seccomp)");
    Ok(show(&all, GOAL))
}

fn covey(node: &Node, name: &str) -> Result<Duration> {
    let text = format!(
        "name = \"{name}\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n\
         command = [\"/hello\", \"--listen\", \":${{PORT_http}}\"]\n"
    );
    let file = node.job_file(name, &text)?.display().to_string();
    let took = timed(&mut node.covey(&["run", &file, "--wait"]))?;
    node.stop(name)?;
    Ok(took)
}

/// From the start of a command to its end, which must be good.
fn timed(command: &mut Command) -> Result<Duration> {
    let begun = Instant::now();
    quiet(command)?;
    Ok(begun.elapsed())
}
