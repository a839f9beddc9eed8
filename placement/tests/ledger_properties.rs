//! What must hold of the ledger's state machine whatever is asked of it, in whatever order.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;

use placement::{
    ids::{CellId, JobKey, NodeId, Principal, RequestId, Uid, Version},
    ledger::{Access, Answer, Command, Completion, Entry, Expect, Ledger, RequestStamp, Role},
    task::{Cause, Exit},
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

fn job() -> impl Strategy<Value = JobKey> {
    select(vec![("ann", "web"), ("ann", "etl"), ("bob", "web")])
        .prop_map(|(owner, name)| JobKey { owner: owner.into(), name: name.into() })
}

fn expect() -> impl Strategy<Value = Expect> {
    let version = (1..40u64, 1..4u64).prop_map(|(index, number)| Expect::Version {
        // Indexes are spread by `sequence`.
        uid: Uid { cell: 1, index: index * STEP },
        version: Version { cell: 1, number },
    });
    prop_oneof![3 => Just(Expect::Any), 1 => Just(Expect::Absent), 2 => version]
}

fn document(name: &str) -> BoxedStrategy<Value> {
    let name = name.to_string();
    let count = prop_oneof![(0..5u32).prop_map(Value::from), Just(json!("many")), Just(json!(2.5))];
    (option::of(count), select(vec!["service", "batch", "batch", "cron"]), select(vec!["64MiB", "1GiB", "?"]))
        .prop_map(move |(count, kind, memory)| {
            let mut document =
                json!({"name": name, "kind": kind, "task": {"image": "hello:1", "memory": memory}});
            if let Some(count) = count {
                document["count"] = count;
            }
            document
        })
        .boxed()
}

fn hash() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c"]).prop_map(|digit| digit.repeat(64))
}

fn command() -> impl Strategy<Value = Command> {
    let node = || (1..4u64).prop_map(NodeId);
    let submit = job().prop_flat_map(|job| {
        let document = prop_oneof![8 => document(&job.name), 1 => Just(json!([1])), 1 => Just(Value::Null)];
        (Just(job), document, option::weighted(0.9, select(vec!["sha256:01", "sha256:02"])), expect())
            .prop_map(|(job, document, digest, expect)| {
                let images = digest.map(|digest| ("hello:1".to_string(), digest.to_string()));
                Command::Submit { job, document, images: images.into_iter().collect(), expect }
            })
    });
    let completion =
        (1..40u64, 0..5u32, any::<bool>(), 0..40u64).prop_map(|(uid, index, success, restart)| Completion {
            uid: Uid { cell: 1, index: uid * STEP },
            index,
            exit: Exit { code: Some(1), signal: None, cause: Cause::Exited },
            success,
            restart_at: restart * STEP,
        });
    prop_oneof![
        1 => select(vec!["lab", "other"]).prop_map(|name| {
            Command::Found { cell: CellId("c0".into()), name: name.into(), generation: 1 }
        }),
        1 => (node(), select(vec!["h1", "h2", ""])).prop_map(|(node, name)| Command::Admit { node, name: name.into() }),
        1 => node().prop_map(|node| Command::Activate { node }),
        2 => (hash(), select(vec![(Role::Node, None), (Role::User, Some("ann")), (Role::Admin, Some("bob"))]), 0..3u32)
            .prop_map(|(hash, (role, name), uses)| {
                Command::Token { hash, role, name: name.map(String::from), uses, ttl_ms: 8000 }
            }),
        3 => (node(), select(vec!["h1", "H1", "h2", "h3"]), hash(), option::of(Just("10.0.0.1:7411".to_string())))
            .prop_map(|(node, name, token_hash, addr)| Command::Join { node, name: name.into(), token_hash, addr }),
        2 => (hash(), hash()).prop_map(|(key_hash, token_hash)| Command::Login { key_hash, token_hash }),
        1 => (50..200u64).prop_map(|ms| Command::Set { lost_after_ms: Some(ms) }),
        1 => node().prop_map(|node| Command::Remove { node }),
        1 => (node(), any::<bool>()).prop_map(|(node, on)| Command::Drain { node, on }),
        6 => submit,
        2 => (job(), option::of(0..5u32)).prop_map(|(job, index)| Command::Stop { job, index }),
        2 => (job(), option::of(0..5u32)).prop_map(|(job, index)| Command::Restart { job, index }),
        2 => (job(), 0..6u32, expect()).prop_map(|(job, count, expect)| Command::Scale { job, count, expect }),
        4 => vec(completion, 0..12).prop_map(|done| Command::Complete { done }),
    ]
}

/// Indexes are this far apart, so that tests can put something between.
const STEP: u64 = 10;

/// A cell with a placer, then anything.
fn sequence() -> impl Strategy<Value = Vec<(u64, Entry)>> {
    let stamp = option::of((select(vec!["ann", "bob"]), 0..12u32)).prop_map(|stamp| {
        stamp
            .map(|(who, id)| RequestStamp { principal: Principal(who.into()), id: RequestId(id.to_string()) })
    });
    vec((stamp, command()), 1..40).prop_map(|entries| {
        let begin = Command::Found { cell: CellId("c0".into()), name: "lab".into(), generation: 1 };
        let entries = [(None, begin)].into_iter().chain(entries).zip(1..);
        entries
            .map(|((request, command), n)| (n * STEP, Entry { request, at_ms: 1000 * n, command }))
            .collect()
    })
}

fn run(entries: &[(u64, Entry)]) -> (Ledger, Vec<Answer>) {
    let mut ledger = Ledger::default();
    let answers = entries.iter().map(|(index, entry)| ledger.apply(*index, entry)).collect();
    (ledger, answers)
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_same_entries_give_the_same_state(entries in sequence()) {
        let again: Vec<(u64, Entry)> = entries.iter().map(|(index, entry)| (*index, through_json(entry))).collect();
        prop_assert_eq!(run(&entries), run(&again));
        let (first, second) = (run(&entries).0, run(&again).0);
        prop_assert_eq!(serde_json::to_string(&first).unwrap(), serde_json::to_string(&second).unwrap());
    }

    #[test]
    fn a_snapshot_and_the_rest_are_the_whole(entries in sequence(), at in any::<prop::sample::Index>()) {
        let (whole, answers) = run(&entries);
        let at = at.index(entries.len());
        let mut ledger = through_json(&run(&entries[..at]).0);
        for ((index, entry), answer) in entries[at..].iter().zip(&answers[at..]) {
            prop_assert_eq!(&ledger.apply(*index, entry), answer);
        }
        prop_assert_eq!(ledger, whole);
    }

    #[test]
    fn a_request_that_comes_again_changes_nothing(
        entries in sequence(),
        repeats in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..8),
    ) {
        let (whole, answers) = run(&entries);
        let mut more: Vec<(u64, Entry)> = entries.clone();
        let mut places = BTreeSet::new();
        for (what, after) in repeats {
            let what = what.index(entries.len());
            let after = what + after.index(entries.len() - what);
            // The same id with something else in it is still the same request.
            if entries[what].1.request.is_some() && places.insert(after) {
                let entry = Entry { at_ms: 7, ..entries[what].1.clone() };
                more.push((entries[after].0 + 1, entry));
            }
        }
        more.sort_by_key(|(index, _)| *index);
        let mut ledger = Ledger::default();
        for (index, entry) in &more {
            let answer = ledger.apply(*index, entry);
            if index % STEP == 0 {
                prop_assert_eq!(&answer, &answers[(index / STEP - 1) as usize]);
            }
        }
        ledger.applied = whole.applied;
        prop_assert_eq!(ledger, whole);
    }

    #[test]
    fn every_state_makes_sense(entries in sequence()) {
        let mut ledger = Ledger::default();
        for (index, entry) in &entries {
            let before = ledger.clone();
            let answer = ledger.apply(*index, entry);
            prop_assert_eq!(ledger.applied, *index);
            prop_assert!(ledger.activation >= before.activation);
            let names: BTreeSet<String> =
                ledger.roster.values().map(|member| member.name.to_ascii_lowercase()).collect();
            prop_assert_eq!(names.len(), ledger.roster.len(), "names of nodes are unique");

            for token in ledger.tokens.values() {
                prop_assert!(token.used_by.len() <= token.uses as usize, "a token is used as often as it may");
            }
            if let (Answer::Done { access: Some(access), .. }, Command::Join { token_hash, .. } | Command::Login { token_hash, .. }) =
                (&answer, &entry.command)
                && entry.request.as_ref().is_none_or(|stamp| before.answered(stamp).is_none())
            {
                let token = &ledger.tokens[token_hash];
                let known = before.tokens[token_hash].used_by == token.used_by;
                prop_assert!(known || token.expires_ms > entry.at_ms, "an expired token lets nobody new in");
                prop_assert_eq!(matches!(access, Access::Node { .. }), token.role == Role::Node);
            }

            for (key, record) in &ledger.jobs {
                let job = record.job();
                prop_assert!(job.is_ok(), "{}: only what can be read is accepted", key);
                prop_assert_eq!(job.unwrap().count, record.count());
                prop_assert!(record.wanted().all(|index| index < record.count()));
                prop_assert!(!record.stopped || record.wanted().next().is_none());
                prop_assert_eq!(record.versions.last().map(|kept| kept.version), Some(record.version));
                prop_assert!(record.restarts.values().all(|at| at <= index));
                if let Some(old) = before.jobs.get(key).filter(|old| old.uid == record.uid) {
                    prop_assert!(record.version >= old.version);
                    let lost = old.finished.iter().find(|(index, done)| {
                        done.success && record.finished.get(index) != Some(done)
                    });
                    prop_assert!(lost.is_none(), "a success is final");
                } else {
                    prop_assert_eq!((record.uid.index, record.version.number), (*index, 1));
                    prop_assert!(before.jobs.get(key).is_none_or(|old| old.is_ended()));
                }
            }

            // A refusal and an "unchanged" change nothing but what is remembered.
            if !matches!(answer, Answer::Done { changed: true, .. }) {
                let quiet = Ledger { applied: before.applied, requests: before.requests.clone(), ..ledger.clone() };
                prop_assert_eq!(quiet, before);
            }
        }
    }
}
