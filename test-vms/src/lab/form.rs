//! One cell on all hosts: agents started, joined, and waited for.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Error, Lab, Plan, Result, wait};

/// The agents' UDP port.
const PORT: u16 = 7411;
/// Between two questions to an agent: a verb takes a fifth of it, so the cell is hardly disturbed.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a cell may take to form.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same on virtual machines, which are slower by ten times and more.
const EMULATED: Duration = Duration::from_secs(240);

/// How long a cell took to form, from the start of the first agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Until the hosts were there, before the first agent.
    pub hosts: Duration,
    /// Until every node saw all others alive, and a placer led.
    pub alive: Duration,
    /// Until there were as many voters as there shall be.
    pub settled: Duration,
}

/// How many voters a cell of so many nodes has.
pub fn voters_of(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

impl Lab {
    /// Makes hosts, an agent on each, and one cell; returns when all are alive everywhere, a placer leads and the voters
    /// are settled.
    ///
    /// # Errors
    /// When the lab cannot be made (nothing is left over then), or its cell does not form (it stays, to be looked at).
    pub fn up(plan: &Plan) -> Result<(Self, Times)> {
        let begun = Instant::now();
        let lab = Self::raise(plan)?;
        let hosts = begun.elapsed();
        let times = lab.form()?;
        Ok((lab, Times { hosts, ..times }))
    }

    /// Starts an agent on every host and forms one cell of them.
    ///
    /// # Errors
    /// When an agent ends, or the cell does not form.
    pub fn form(&self) -> Result<Times> {
        let hosts = self.hosts()?;
        let begun = Instant::now();
        if let [first, others @ ..] = &hosts[..] {
            self.start(first)?;
            if !others.is_empty() {
                let token = self.token(first, others.len())?;
                others.iter().try_for_each(|host| self.join(host, first, &token))?;
            }
        }
        self.all_alive(&hosts)?;
        let alive = begun.elapsed();
        self.settled(&hosts)?;
        Ok(Times { hosts: Duration::ZERO, alive, settled: begun.elapsed() })
    }

    /// One more host of the lab's kind, as a node of the cell; returns when it sees itself among the others.
    ///
    /// # Errors
    /// When it cannot be made or does not join.
    pub fn add(&self, host: &str) -> Result<()> {
        self.add_of_kind(host, self.state()?.vms)
    }

    /// The same as a virtual machine, whatever the others are.
    ///
    /// # Errors
    /// As [`Lab::add`].
    pub fn add_vm(&self, host: &str) -> Result<()> {
        self.add_of_kind(host, true)
    }

    fn add_of_kind(&self, host: &str, is_vm: bool) -> Result<()> {
        let through = self.any_agent()?;
        self.make_host(host, is_vm)?;
        let token = self.token(&through, 1)?;
        self.join(host, &through, &token)?;
        let what = format!("host `{host}` joins");
        wait::until(what, self.patience()?, PAUSE, || {
            let nodes = self.nodes(host);
            let there =
                |nodes: &[Value]| nodes.iter().any(|node| node["name"] == host && node["state"] == "alive");
            Ok(match nodes {
                Ok(nodes) if there(&nodes) => Ok(()),
                Ok(nodes) => Err(summary(&nodes)),
                Err(why) => Err(self.running(host, why)?),
            })
        })
    }

    /// Starts the agent and returns when it answers. Without a cell on its disk it starts a new one.
    ///
    /// # Errors
    /// When one runs already, or it does not answer.
    pub fn start(&self, host: &str) -> Result<()> {
        let state = self.state()?;
        let machine = self.machine(&state, host)?;
        // A unit file names some nodes, with which a node finds its cell again when all addresses have changed.
        let others = state.hosts.iter().filter(|(name, _)| *name != host);
        let others: Vec<String> = others.map(|(_, other)| format!("{}:{PORT}", other.addr)).collect();
        if machine.has_cell() && !others.is_empty() {
            self.start_with(host, &["--join", &others.join(",")])?;
        } else {
            self.start_with(host, &[])?;
        }
        machine.agent_answers()
    }

    /// Powers a host on and starts its agent, as its service manager would.
    ///
    /// # Errors
    /// As [`Lab::power`] and [`Lab::start`].
    pub fn boot(&self, host: &str, addr: Option<std::net::Ipv4Addr>) -> Result<()> {
        self.power(host, addr)?;
        self.start(host)
    }

    fn patience(&self) -> Result<Duration> {
        let emulated = self.state()?.hosts.values().any(|host| host.vm);
        Ok(if emulated { EMULATED } else { PATIENCE })
    }

    /// Which binary `covey` is on a host from now on; what runs goes on.
    ///
    /// # Errors
    /// When there is no such host, or it is powered off.
    pub fn install(&self, host: &str, binary: &std::path::Path) -> Result<()> {
        self.machine(&self.state()?, host)?.install(binary)
    }

    /// Starts the agent of a host that shall join the cell through another, and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join(&self, host: &str, through: &str, token: &str) -> Result<()> {
        let state = self.state()?;
        let peer = format!("{}:{PORT}", self.known(&state, through)?.addr);
        self.start_with(host, &["--join", &peer, "--token", token])
    }

    /// A token with which so many nodes may join.
    ///
    /// # Errors
    /// When the cell refuses.
    pub fn token(&self, host: &str, uses: usize) -> Result<String> {
        let said = self.json(host, &["token", "--uses", &uses.to_string()]).or_else(|why| {
            let machine = self.machine(&self.state()?, host)?;
            Err(if machine.agent_pid().is_some() { why } else { machine.agent_ended() })
        })?;
        said["token"].as_str().map(str::to_owned).ok_or_else(|| Error::NoJson {
            host: host.to_owned(),
            command: "covey token --json".to_owned(),
            why: "no field `token`".to_owned(),
            said: said.to_string(),
        })
    }

    /// What `covey nodes` lists on a host.
    ///
    /// # Errors
    /// When its agent does not answer.
    pub fn nodes(&self, host: &str) -> Result<Vec<Value>> {
        match self.json(host, &["nodes"])?["items"].take() {
            Value::Array(nodes) => Ok(nodes),
            other => Err(Error::NoJson {
                host: host.to_owned(),
                command: "covey nodes --json".to_owned(),
                why: "no list `items`".to_owned(),
                said: other.to_string(),
            }),
        }
    }

    /// Waits until each of `hosts` lists all of them, and no other, as alive, and a placer leads.
    ///
    /// # Errors
    /// When an agent ends, or it takes a minute.
    pub fn all_alive(&self, hosts: &[String]) -> Result<()> {
        // One after another: once a node is right it stays so, and a machine of two cores is not kept busy by questions.
        hosts.iter().try_for_each(|host| {
            let what = format!("`{host}` sees {} nodes alive and a placer", hosts.len());
            wait::until(what, self.patience()?, PAUSE, || {
                let nodes = match self.nodes(host) {
                    Ok(nodes) => nodes,
                    Err(why) => return self.running(host, why).map(Err),
                };
                let alive = nodes.iter().filter(|node| node["state"] == "alive").count();
                let placers = nodes.iter().filter(|node| node["placer"] == true).count();
                if nodes.len() == hosts.len() && alive == hosts.len() && placers == 1 {
                    return Ok(Ok(()));
                }
                // Whose agent has ended, which says why, is waited for in vain.
                let state = self.state()?;
                for host in hosts {
                    let machine = self.machine(&state, host)?;
                    if machine.agent_pid().is_none() {
                        return Err(machine.agent_ended());
                    }
                }
                Ok(Err(summary(&nodes)))
            })
        })
    }

    /// Waits until there are as many voters as `hosts` shall have.
    ///
    /// # Errors
    /// As [`Lab::all_alive`].
    pub fn settled(&self, hosts: &[String]) -> Result<()> {
        let Some(first) = hosts.first() else { return Ok(()) };
        let wanted = voters_of(hosts.len());
        self.nodes_are(first, format!("`{first}` sees {wanted} voters"), |nodes| {
            nodes.iter().filter(|node| node["voter"] == true).count() == wanted
        })
    }

    /// Waits until the nodes that a host lists are as they shall be.
    ///
    /// # Errors
    /// As [`Lab::all_alive`].
    pub fn nodes_are(&self, host: &str, what: String, right: impl Fn(&[Value]) -> bool) -> Result<()> {
        wait::until(what, self.patience()?, PAUSE, || match self.nodes(host) {
            Ok(nodes) if right(&nodes) => Ok(Ok(())),
            Ok(nodes) => Ok(Err(summary(&nodes))),
            Err(why) => self.running(host, why).map(Err),
        })
    }

    /// An agent that runs may answer in a moment; one that has ended will not.
    fn running(&self, host: &str, why: Error) -> Result<String> {
        let machine = self.machine(&self.state()?, host)?;
        if machine.agent_pid().is_some() { Ok(why.to_string()) } else { Err(machine.agent_ended()) }
    }

    /// The first host whose agent runs.
    ///
    /// # Errors
    /// When there is none.
    pub fn any_agent(&self) -> Result<String> {
        let state = self.state()?;
        let runs =
            |host: &String| self.machine(&state, host).is_ok_and(|machine| machine.agent_pid().is_some());
        let hosts = self.hosts()?;
        hosts
            .iter()
            .find(|host| runs(host))
            .cloned()
            .ok_or_else(|| Error::NoAgent(hosts.first().cloned().unwrap_or_else(|| "h1".to_owned())))
    }

    fn start_with(&self, host: &str, more: &[&str]) -> Result<()> {
        let state = self.state()?;
        let Some(here) = state.hosts.get(host).cloned() else { return self.known(&state, host).map(drop) };
        let mut args = vec!["--listen".to_owned(), format!("{}:{PORT}", here.addr)];
        args.extend(["--cell", self.name(), "--label"].map(str::to_owned));
        args.push(format!("rack={}", here.rack));
        if let Some(config) = state.config.as_ref().filter(|_| !here.vm) {
            args.extend(["--config".to_owned(), config.display().to_string()]);
        }
        args.extend(more.iter().map(|word| (*word).to_owned()));
        self.machine(&state, host)?.start_agent(&args)
    }
}

/// `h1 alive placer voter, h2 gone …`
fn summary(nodes: &[Value]) -> String {
    let one = |node: &Value| {
        let mut text =
            format!("{} {}", node["name"].as_str().unwrap_or("?"), node["state"].as_str().unwrap_or("?"));
        for role in ["placer", "voter"].iter().filter(|role| node[**role] == true) {
            text.push_str(&format!(" {role}"));
        }
        text
    };
    nodes.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn says_what_was_seen() {
        let nodes =
            [json!({"name": "h1", "state": "alive", "placer": true, "voter": true}), json!({"name": "h2"})];
        assert_eq!(summary(&nodes), "h1 alive placer voter, h2 ?");
    }
}
