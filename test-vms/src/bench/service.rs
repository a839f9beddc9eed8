//! A production service that fills a node on paper, each request to which takes about a millisecond of CPU.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use test_vms::node::{Node, Plan};
use test_vms::{Error, Result};

use crate::arrivals::{Answered, Asked, flat_out, poisson};
use crate::dice::Dice;
use crate::{band, cores};

/// What its load is of its core.
const SHARE: f64 = 0.3;

/// A node of two CPUs, though its tasks get one: there is room on paper for neighbours, whatever it predicts.
pub(crate) fn room_on_paper() -> Plan {
    Plan { config: "capacity = { cpu = 2 }\nestimate = { preset = \"off\" }\n".to_owned(), ..Plan::default() }
}

/// A node of one CPU that soon believes what it sees, so that nobody has to wait for hours.
pub(crate) fn overcommitted() -> Plan {
    let estimate = "{ preset = \"aggressive\", hold = \"10s\", horizon = \"600s\" }";
    Plan { config: format!("capacity = {{ cpu = 1 }}\nestimate = {estimate}\n"), ..Plan::default() }
}

/// A service that runs on the measured core, and users who ask it.
pub(crate) struct Service {
    asked: Asked,
    pub(crate) a_second: f64,
    dice: Dice,
}

impl Service {
    /// Starts it, and finds out how many requests a second are the load that is wanted.
    pub(crate) fn start(node: &Node, memory: &str) -> Result<Self> {
        node.run("service", &job("service", "production", 1, "1", memory))?;
        cores::pin_tasks(node)?;
        let asked = Asked { at: address(&one(node, "service")?)?, path: "/work?us=1000".to_owned() };
        let (before, length) = (band::cpu(node, "production")?, Duration::from_secs(2));
        let answered = flat_out(&asked, 1, length)?;
        let used = band::cpu(node, "production")?.saturating_sub(before);
        let requests = answered.a_second * length.as_secs_f64();
        if requests < 100.0 {
            return Err(Error::Missing(format!("the service answered {requests} requests in {length:?}")));
        }
        Ok(Self { asked, a_second: SHARE * requests / used.as_secs_f64(), dice: Dice(0x5eed) })
    }

    pub(crate) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// How many requests a second take this share of a core.
    pub(crate) fn of_a_core(&self, share: f64) -> f64 {
        self.a_second * share / SHARE
    }

    pub(crate) fn at(&self) -> SocketAddr {
        self.asked.at
    }

    /// A while of the load.
    pub(crate) fn load(&mut self, length: Duration) -> Result<Answered> {
        poisson(&self.asked, self.a_second, length, &mut self.dice)
    }

    /// A while of all that it can do.
    pub(crate) fn all_it_can(&self, length: Duration) -> Result<Answered> {
        flat_out(&self.asked, 8, length)
    }
}

/// A job of so many `hello` servers.
pub(crate) fn job(name: &str, band: &str, count: usize, cpu: &str, memory: &str) -> String {
    format!(
        "name = \"{name}\"\nband = \"{band}\"\ncount = {count}\n[task]\nimage = \"hello:1\"\ncpu = \"{cpu}\"\n\
         memory = \"{memory}\"\nports = [\"http\"]\ncommand = [\"/hello\", \"--listen\", \":${{PORT_http}}\"]\n\
         grace = \"1s\"\npids = 256\n"
    )
}

/// The tasks of a job that run.
pub(crate) fn running(node: &Node, job: &str) -> Result<Vec<Value>> {
    let mut tasks = node.items(&["tasks", job])?;
    tasks.retain(|task| task["state"] == "running");
    Ok(tasks)
}

fn one(node: &Node, job: &str) -> Result<Value> {
    running(node, job)?.pop().ok_or_else(|| Error::Missing(format!("no task of {job} runs")))
}

/// Where a task listens.
pub(crate) fn address(task: &Value) -> Result<SocketAddr> {
    let port = task["ports"]["http"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| Error::Missing(format!("a task without a port: {task}")))?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// How often the tasks of a job have been started again, all together.
pub(crate) fn restarts(node: &Node, job: &str) -> Result<u64> {
    let tasks = node.items(&["tasks", job])?;
    Ok(tasks.iter().filter_map(|task| task["restarts"].as_u64()).sum())
}
