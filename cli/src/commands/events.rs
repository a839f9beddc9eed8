//! What happened, and with -f what happens.

use std::{collections::BTreeMap, ops::ControlFlow, time::UNIX_EPOCH};

use gossip::wire::{Call, JobName, Reply};
use serde_json::Value;

use crate::{
    args,
    failure::Failure,
    output::{Out, event_line},
    session::{Reader, Session},
};

pub(super) async fn events(args: args::Events, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let since_ms = args.since.map(|since| since.0);
    let node = args.node.into_iter().find(|node| !node.contains(':'));
    if args.follow {
        let job = args.job;
        return session.follow(&mut Follower { job, node, since_ms, seen: BTreeMap::new(), out }).await;
    }
    let call = Call::Events { job: args.job, node, since_ms, follow: false };
    let list = session.ask(call).await?;
    out.either(&list, |list| {
        let lines: Vec<_> = list["items"].as_array().into_iter().flatten().map(event_line).collect();
        if lines.is_empty() { "no events".to_owned() } else { lines.join("\n") }
    })
}

struct Follower<'o> {
    job: Option<JobName>,
    node: Option<String>,
    since_ms: Option<u64>,
    /// The last number of each node: what comes again after an outage is known by it.
    seen: BTreeMap<String, u64>,
    out: &'o mut Out,
}

impl Reader for Follower<'_> {
    fn call(&self) -> Call {
        let (job, node) = (self.job.clone(), self.node.clone());
        Call::Events { job, node, since_ms: self.since_ms, follow: true }
    }

    fn take(&mut self, part: Reply) -> Result<ControlFlow<()>, Failure> {
        let Reply::Item(event) = part else { return Ok(ControlFlow::Continue(())) };
        if self.is_new(&event) {
            self.out.either(&event, event_line)?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Follower<'_> {
    fn is_new(&mut self, event: &Value) -> bool {
        if let Some(time) = event["time"].as_str().and_then(|time| humantime::parse_rfc3339_weak(time).ok()) {
            let ms = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            self.since_ms = self.since_ms.max(u64::try_from(ms).ok());
        }
        let (Some(node), Some(seq)) = (event["node"].as_str(), event["seq"].as_u64()) else { return true };
        match self.seen.insert(node.to_owned(), seq) {
            Some(last) if last >= seq => {
                self.seen.insert(node.to_owned(), last);
                false
            }
            _ => true,
        }
    }
}
