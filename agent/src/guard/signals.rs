//! What production says of itself (`task.signal`): each second its figures are looked at, and while one has been too high for
//! as long as its job says, batch and free have less CPU (see [`super::ease`]); for want of memory one of them ends.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use placement::{
    job::{
        Band,
        signal::{Figure, Pressure, Signal},
    },
    resources::MEMORY,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{
    ease::Ease,
    who::{Chooser, Shortage, Tenant},
};
use crate::{
    clock,
    core::Core,
    daemon::inbox::NodeHandle,
    event::RunId,
    journal::Journal,
    runner::{Ground, prepare::band},
};

const EVERY: Duration = Duration::from_secs(1);
/// A task that takes longer to answer says nothing.
const ANSWER: Duration = Duration::from_millis(900);
/// What is read of an answer.
const MOST: u64 = 1 << 20;

/// Somebody to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) run: RunId,
    pub(crate) band: Band,
    /// `OWNER/JOB/INDEX`.
    pub(crate) name: String,
    pub(crate) signal: Signal,
    /// As the task knows it; none if nothing is asked.
    pub(crate) port: Option<u16>,
}

/// Somebody who may have to give way, and its CPU limit.
pub(crate) type Limited = (Tenant, u64);

/// What was seen of one run.
#[derive(Debug, Default)]
struct Seen {
    stalled_us: Option<u64>,
    at_ms: u64,
    since_ms: Option<u64>,
    silent: bool,
}

/// Looks until the node's loop ends.
pub(crate) async fn run(ground: Arc<Ground>, node: NodeHandle, journal: Journal) {
    let mut seen: BTreeMap<RunId, Seen> = BTreeMap::new();
    let mut ease = Ease::default();
    let mut chooser = Chooser::default();
    let mut says: Option<String> = None;
    loop {
        sleep(EVERY).await;
        let over = ease.is_over();
        let look = move |core: &Core| {
            let watched = core.signals();
            let of_interest = !watched.is_empty() || !over;
            (watched, if of_interest { core.limited() } else { Vec::new() })
        };
        let Some((watched, limited)) = node.read(look).await else { return };
        seen.retain(|run, _| watched.iter().any(|w| w.run == *run));
        let mut worst = None;
        for one in &watched {
            let of = seen.entry(one.run).or_default();
            let figure = figure(&ground, one, of).await;
            let now = clock::now().mono_ms;
            match figure {
                Ok(figure) if figure > one.signal.above as f64 => {
                    let since = *of.since_ms.get_or_insert(now);
                    if now >= since + one.signal.for_ms {
                        let (what, above) = (&one.signal.of, one.signal.above);
                        let text =
                            format!("{}: {what} is {figure:.0}, and should not be above {above}", one.name);
                        worst = Some((one, text));
                    }
                }
                Ok(_) => of.since_ms = None,
                Err(why) => {
                    // Nothing follows from what nobody knows.
                    of.since_ms = None;
                    if !std::mem::replace(&mut of.silent, true) {
                        journal.node("warning", format!("the signal of {} cannot be read: {why}", one.name));
                    }
                }
            }
        }
        let of_memory = |one: &Watched| one.signal.of == Figure::Pressure { pressure: Pressure::Memory };
        if let Some((one, text)) = worst.as_ref().filter(|(one, _)| of_memory(one)) {
            evict(&ground, &node, &mut chooser, &limited, text);
            if let Some(of) = seen.get_mut(&one.run) {
                // It may take as long again to be felt.
                of.since_ms = None;
            }
        }
        let before = ease;
        ease.step(worst.as_ref().is_some_and(|(one, _)| !of_memory(one)));
        if before.is_over() && ease.is_over() {
            continue;
        }
        let ground = ground.clone();
        let applied = spawn_blocking(move || apply(&ground, &limited, &ease));
        let _ = applied.await;
        if let Some((_, text)) = worst.filter(|_| says.is_none()) {
            let text = format!("{text}: free, and then batch, get less CPU");
            journal.node("eased", text.clone());
            says = Some(text);
        } else if ease.is_over() && says.take().is_some() {
            journal.node("eased", "free and batch have all of their CPU again".to_string());
        }
    }
}

async fn figure(ground: &Arc<Ground>, one: &Watched, seen: &mut Seen) -> Result<f64, String> {
    match &one.signal.of {
        Figure::Pressure { pressure } => {
            let cgroup = ground.tree.placement(band(one.band), &one.run.to_string());
            let what = pressure.as_str();
            let now = clock::now().mono_ms;
            let stalled = cgroup.stalled(what).ok_or_else(|| {
                format!(
                    "this node does not tell how long tasks wait for {what} (no PSI, or no unified cgroups)"
                )
            })?;
            let (before, at) = (seen.stalled_us.replace(stalled), std::mem::replace(&mut seen.at_ms, now));
            let Some(before) = before else { return Ok(0.0) };
            Ok(stalled.saturating_sub(before) as f64 / 10.0 / now.saturating_sub(at).max(1) as f64)
        }
        Figure::Metric { http, metric, .. } => {
            let port = one.port.ok_or("it has no such port")?;
            let to = SocketAddr::from((ground.reach(one.run), port));
            let text = timeout(ANSWER, get(to, http)).await;
            let text = text
                .map_err(|_| format!("GET http://{to}{http} takes longer than {} ms", ANSWER.as_millis()))?;
            let text = text.map_err(|why| format!("GET http://{to}{http}: {why}"))?;
            largest(&text, metric).ok_or_else(|| format!("http://{to}{http} has no metric {metric}"))
        }
    }
}

async fn get(to: SocketAddr, path: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(to).await?;
    // The older version: then no answer comes in pieces.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {to}\r\nuser-agent: covey-signal\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The largest value of `metric`, whatever its labels, in what Prometheus reads.
fn largest(text: &str, metric: &str) -> Option<f64> {
    let value = |line: &str| -> Option<f64> {
        let rest = line.trim_end().strip_prefix(metric)?;
        let rest = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest.starts_with([' ', '\t']).then_some(rest)?,
        };
        rest.split_ascii_whitespace().next()?.parse().ok().filter(|value: &f64| !value.is_nan())
    };
    text.lines().filter_map(value).reduce(f64::max)
}

fn apply(ground: &Ground, limited: &[Limited], ease: &Ease) {
    for (tenant, cpu_milli) in limited {
        let cgroup = ground.tree.placement(band(tenant.band), &tenant.run.to_string());
        if let Err(error) = cgroup.throttle(ease.of(tenant.band, *cpu_milli)) {
            // It has ended meanwhile, most likely.
            tracing::debug!("{}: {error}", tenant.run);
        }
    }
}

fn evict(ground: &Ground, node: &NodeHandle, chooser: &mut Chooser, limited: &[Limited], why: &str) {
    let mut tenants: Vec<Tenant> = limited.iter().map(|(tenant, _)| tenant.clone()).collect();
    for tenant in &mut tenants {
        tenant.used = super::used(ground, tenant).unwrap_or(tenant.reserved);
    }
    let shortage = Shortage { what: MEMORY, need: 1, hurry: false, why: why.to_string() };
    for eviction in chooser.choose(clock::now().mono_ms, &shortage, &tenants) {
        node.tell(eviction.event());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_of_a_metric() {
        let text = "HTTP/1.0 200 OK\r\n\r\n# TYPE p99_ms gauge\np99_ms{path=\"/a b\"} 12.5\np99_ms{path=\"/b\"} 80 1700000000\n\
                    p99_ms_total 900\np99_msx 7\nbad{ 4\nnone NaN\n";
        assert_eq!(largest(text, "p99_ms"), Some(80.0));
        assert_eq!(largest(text, "p99_ms_total"), Some(900.0));
        assert_eq!(largest(text, "p99"), None);
        assert_eq!((largest(text, "bad"), largest(text, "none")), (None, None));
        assert_eq!(largest("requests 3\r\n", "requests"), Some(3.0));
    }
}
