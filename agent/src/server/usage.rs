//! `covey usage` and `covey top`: what tasks may use, are believed to need, and use. Each node is asked for its own, since
//! what the placer has heard may be a little behind.

use std::collections::{BTreeMap, BTreeSet};

use gossip::wire::{
    ask::OwnPart,
    usage::{Ended, UsageBy},
};
use placement::{
    ids::{JobKey, NodeId},
    job::Band,
    ledger::{Ledger, Refusal},
    resources::{CPU, MEMORY, Resources},
    task::Cause,
};
use serde_json::{Map, Value, json};

use super::{Services, look};
use crate::{
    api, clock,
    shares::{Group, Room, Share, endings, of_bands, shares, strain},
};

pub(super) async fn usage(services: &Services, by: UsageBy) -> Result<Value, Refusal> {
    let seen = Seen::look(services).await?;
    let items = seen.items(by);
    let mut document = seen.document(items);
    document["by"] = json!(by.as_str());
    Ok(document)
}

pub(super) async fn top(services: &Services) -> Result<Value, Refusal> {
    let seen = Seen::look(services).await?;
    let mut document = seen.document(Vec::new());
    if let Value::Object(fields) = &mut document {
        fields.remove("items");
        for (name, by) in [("nodes", UsageBy::Node), ("bands", UsageBy::Band), ("tasks", UsageBy::Task)] {
            fields.insert(name.to_string(), seen.items(by).into());
        }
    }
    Ok(document)
}

/// The nodes' own parts.
struct Seen {
    parts: Vec<OwnPart>,
    /// Of all members.
    names: BTreeMap<NodeId, String>,
    missing: Vec<String>,
    /// They are to be rid of their tasks.
    draining: BTreeSet<NodeId>,
    stale: bool,
}

impl Seen {
    async fn look(services: &Services) -> Result<Seen, Refusal> {
        let parts = look::parts(services).await?;
        Ok(Seen::new(parts, &services.ledger.state(), services.cell.placer()))
    }

    fn new(parts: Vec<OwnPart>, ledger: &Ledger, placer: Option<NodeId>) -> Seen {
        let heard: BTreeSet<NodeId> = parts.iter().map(|part| part.node.id).collect();
        let members = || ledger.roster.iter();
        let mut names: BTreeMap<NodeId, String> =
            members().map(|(id, member)| (*id, member.name.clone())).collect();
        names.extend(parts.iter().map(|part| (part.node.id, part.node.name.clone())));
        let mut missing: Vec<String> =
            members().filter(|(id, _)| !heard.contains(id)).map(|(_, m)| m.name.clone()).collect();
        missing.sort();
        // One that is cut off still believes in a placer for a while.
        let stale = !placer.is_some_and(|placer| heard.contains(&placer));
        let draining = members().filter(|(_, m)| m.draining).map(|(id, _)| *id).collect();
        Seen { parts, names, missing, draining, stale }
    }

    /// All but what depends on how they are put together.
    fn document(&self, items: Vec<Value>) -> Value {
        let mut document = api::answer(clock::now(), self.stale, &self.missing, items);
        let (mut capacity, mut room) = (Resources::default(), Room::default());
        for part in &self.parts {
            capacity.add(&part.node.capacity);
            room.add(&self.room(part));
        }
        let ended = endings(&self.parts);
        let split = [("prod", Some(true)), ("non_prod", Some(false)), ("total", None)];
        for (name, prod) in split {
            let counts = |band: Band| prod.is_none_or(|prod| band.is_prod() == prod);
            let mut sum = share(&of_bands(&self.parts, counts));
            sum.insert("evicted".into(), evicted(&ended, counts));
            sum.insert("notice".into(), notice(&ended, counts));
            document[name] = sum.into();
        }
        document["nodes"] = json!(self.parts.len());
        document["capacity"] = json!(capacity);
        document["room"] = json!({"prod": room.prod, "non_prod": room.non_prod});
        document["kept"] = json!(room.kept);
        document
    }

    fn room(&self, part: &OwnPart) -> Room {
        if self.draining.contains(&part.node.id) {
            return Room::default();
        }
        Room::of(&part.books, &part.node.capacity)
    }

    fn items(&self, by: UsageBy) -> Vec<Value> {
        let ended = endings(&self.parts);
        let mut items: Vec<Value> =
            shares(&self.parts, by).iter().map(|(group, one)| self.item(group, one, &ended)).collect();
        match by {
            // The most important first.
            UsageBy::Band => items.reverse(),
            UsageBy::Node => items.sort_by_key(|item| item["node"].as_str().map(str::to_string)),
            _ => {}
        }
        items
    }

    fn item(&self, group: &Group, one: &Share, ended: &[Ended]) -> Value {
        let mut item = share(one);
        let mut say = |name: &str, value: Value| item.insert(name.into(), value);
        let of_job = |job: &JobKey| [("job", json!(job.name)), ("owner", json!(job.owner))];
        match group {
            Group::Band(band) => {
                say("band", json!(band));
                say("prod", json!(band.is_prod()));
                say("evicted", evicted(ended, |of| of == *band));
                say("notice", notice(ended, |of| of == *band));
                say("strain", json!(strain(&self.parts, *band)));
            }
            Group::Owner(owner) => {
                say("owner", json!(owner));
            }
            Group::Job(job) => {
                for (name, value) in of_job(job) {
                    say(name, value);
                }
                say("band", json!(one.band));
            }
            Group::Task(job, index, node) => {
                for (name, value) in of_job(job) {
                    say(name, value);
                }
                say("index", json!(index));
                say("band", json!(one.band));
                say("state", json!(one.state));
                say("node", json!(self.names.get(node)));
            }
            Group::Node(node) => {
                say("node", json!(self.names.get(node)));
                if let Some(part) = self.parts.iter().find(|part| part.node.id == *node) {
                    let room = self.room(part);
                    say("capacity", json!(part.node.capacity));
                    say("room", json!({"prod": room.prod, "non_prod": room.non_prod}));
                    say("kept", json!(room.kept));
                    say("strain", json!(part.strain));
                    say("predicted", json!(part.books.predicted.as_ref().map(|predicted| &predicted.peak)));
                }
            }
        }
        item.into()
    }
}

fn share(share: &Share) -> Map<String, Value> {
    // CPU and memory are always there.
    let whole = |of: &Resources| {
        let mut whole = Resources::new(0, 0);
        whole.add(of);
        json!(whole)
    };
    let fields = [
        ("tasks", json!(share.tasks)),
        ("limit", whole(&share.limit)),
        ("reservation", whole(&share.reservation)),
        ("usage", used(share)),
        ("reclaimed", whole(&share.reclaimed())),
    ];
    fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

/// What nobody has measured yet is null.
fn used(share: &Share) -> Value {
    let measured = |(name, amount): (&String, &u64)| (name.clone(), json!(amount));
    let mut used: Map<String, Value> = share.usage.0.iter().map(measured).collect();
    for name in [CPU, MEMORY] {
        used.entry(name).or_insert_with(|| if share.tasks == 0 { json!(0) } else { Value::Null });
    }
    used.into()
}

/// Runs of these bands that the cell ended for its own reasons: `{hour, day, causes: {CAUSE: {hour, day}}}`. `causes` has every
/// ending that nobody asked for, a task's own faults too; the sums only what was done to it.
fn evicted(ended: &[Ended], counts: impl Fn(Band) -> bool) -> Value {
    let (mut hour, mut day) = (0, 0);
    let mut causes: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for one in ended.iter().filter(|one| counts(one.band) && one.cause != Cause::Stopped) {
        let own = matches!(one.cause, Cause::OomLimit | Cause::Unhealthy | Cause::Disk | Cause::ShimLost);
        if !own {
            (hour, day) = (hour + one.hour, day + one.day);
        }
        let name = json!(one.cause).as_str().unwrap_or_default().to_string();
        let sum = causes.entry(name).or_default();
        *sum = (sum.0 + one.hour, sum.1 + one.day);
    }
    let causes: Map<String, Value> =
        causes.into_iter().map(|(name, (hour, day))| (name, json!({"hour": hour, "day": day}))).collect();
    json!({"hour": hour, "day": day, "causes": causes})
}

/// How many runs of these bands were told to end within a day, and how many of them had time for it: `{told, notified, causes:
/// {CAUSE: {told, notified}}}`.
fn notice(ended: &[Ended], counts: impl Fn(Band) -> bool) -> Value {
    let (mut all, mut causes) = ((0, 0), BTreeMap::<String, (u32, u32)>::new());
    for one in ended.iter().filter(|one| counts(one.band) && one.told > 0) {
        let name = json!(one.cause).as_str().unwrap_or_default().to_string();
        for sum in [&mut all, causes.entry(name).or_default()] {
            *sum = (sum.0 + one.told, sum.1 + one.notified);
        }
    }
    let of = |(told, notified)| json!({"told": told, "notified": notified});
    let causes: Map<String, Value> = causes.into_iter().map(|(name, sum)| (name, of(sum))).collect();
    let mut notice = of(all);
    notice["causes"] = causes.into();
    notice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_measured_is_not_nothing() {
        let of = |tasks, usage: Resources| used(&Share { tasks, usage, ..Share::default() });
        assert_eq!(of(0, Resources::default()), json!({CPU: 0, MEMORY: 0}));
        assert_eq!(of(2, Resources::default()), json!({CPU: null, MEMORY: null}));
        assert_eq!(of(2, [(CPU, 0), ("x", 1)].into_iter().collect()), json!({CPU: 0, MEMORY: null, "x": 1}));
    }

    #[test]
    fn who_was_not_told_is_not_counted_and_a_stop_is_no_eviction() {
        let one = |band, cause, day, told, notified| Ended { band, cause, hour: day, day, told, notified };
        let ended = [
            one(Band::Free, Cause::Reclaimed, 5, 3, 2),
            one(Band::Free, Cause::Stopped, 4, 4, 4),
            one(Band::Free, Cause::OomLimit, 7, 0, 0),
            one(Band::Batch, Cause::Stopped, 1, 1, 1),
        ];
        let free = |band| band == Band::Free;
        let causes = json!({"reclaimed": {"told": 3, "notified": 2}, "stopped": {"told": 4, "notified": 4}});
        assert_eq!(notice(&ended, free), json!({"told": 7, "notified": 6, "causes": causes}));
        let causes = json!({"reclaimed": {"hour": 5, "day": 5}, "oom.limit": {"hour": 7, "day": 7}});
        assert_eq!(evicted(&ended, free), json!({"hour": 5, "day": 5, "causes": causes}));
        assert_eq!(notice(&ended, Band::is_prod), json!({"told": 0, "notified": 0, "causes": {}}));
    }
}
