//! What nodes pass on and ask each other, frozen. `UPDATE=1` rewrites the golden file.
#![allow(clippy::unwrap_used)]

mod golden;

use std::collections::{BTreeMap, BTreeSet};

use golden::{frozen, lines};
use gossip::wire::{
    Call, JobName, PROTOCOL, Request,
    ask::{OwnPart, Passed, Question, To, Told, VolumesOf},
    usage::Ended,
};
use placement::{
    ids::{Activation, JobKey, NodeId, Principal, RequestId, TaskKey, Uid},
    job::Band,
    ledger::Refusal,
    node::{Books, NodeInfo},
    resources::Resources,
    task::{Cause, Strain},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const TASK: TaskKey = TaskKey { uid: Uid { cell: 1, index: 7 }, index: 2 };

fn passed() -> Vec<Passed> {
    let request = |call| Request {
        protocol: PROTOCOL.into(),
        principal: Some(Principal("ann".into())),
        id: RequestId("0123456789abcdef0123456789abcdef".into()),
        call,
    };
    let run = Call::Run {
        document: json!({"name": "web"}),
        owner: None,
        create: false,
        read: None,
        keep_images: false,
    };
    let logs = Call::Logs {
        job: JobName { owner: None, name: "web".into() },
        index: 2,
        follow: true,
        previous: false,
        tail: None,
        from: None,
        since_ms: None,
    };
    let images = BTreeMap::from([("hello:1".into(), format!("sha256:{}", "ab".repeat(32)))]);
    vec![
        Passed { request: request(run), to: To::Placer, images: Some(images), task: None, run: None },
        Passed {
            request: request(logs),
            to: To::Node,
            images: None,
            task: Some(TASK),
            run: Some("1.7.2-1.3.5-0".into()),
        },
    ]
}

fn questions() -> Vec<Question> {
    let job = JobKey { owner: "ann".into(), name: "db".into() };
    let of = VolumesOf { job, index: 2, name: Some("data".into()) };
    vec![
        Question::Pull { after: 7, wait_ms: 500 },
        Question::Own,
        Question::Runs { task: TASK, job: None },
        Question::Runs { task: TASK, job: Some(of.job.clone()) },
        Question::Volumes { of, remove: true },
    ]
}

fn told() -> Vec<Told> {
    let node = NodeInfo {
        id: NodeId(0xfeed),
        name: "n1".into(),
        addr: "10.0.0.1:7411".into(),
        version: "0.1.0".into(),
        labels: BTreeMap::new(),
        capacity: Resources::new(2_000, 1 << 30),
        images: BTreeSet::new(),
        volumes: Default::default(),
        bad: Vec::new(),
    };
    let own = OwnPart {
        node,
        books: Books::default(),
        usage: Resources::default(),
        tasks: Vec::new(),
        promise: Activation { cell: 1, index: 3 },
        applied: 9,
        voter: true,
        ended: vec![Ended {
            band: Band::Free,
            cause: Cause::Reclaimed,
            hour: 1,
            day: 3,
            told: 2,
            notified: 2,
        }],
        strain: BTreeMap::from([(
            Band::Batch,
            Strain { waits_for_cpu_permille: Some(900), ..Strain::default() },
        )]),
    };
    vec![
        Told::Entries { first: 8, entries: vec![json!({"x": 1})] },
        Told::Part { text: "{}".into(), last: true },
        Told::Own(Box::new(own)),
        Told::Runs {
            newest: Some("1.7.2-1.3.5-0".into()),
            runs: vec!["1.7.2-1.3.5-0".into()],
            left: Some("1.7.2-1.3.5-0".into()),
        },
        Told::Volumes { names: vec!["data".into()], bytes: 4096 },
        Told::Refused(Refusal { code: "invalid".into(), message: "no".into(), hint: None }),
    ]
}

#[test]
fn the_wire_is_as_it_was() {
    frozen("ask", &[lines(passed()), lines(questions()), lines(told())].concat());
}

#[test]
fn unknown_fields_do_no_harm() {
    fn survives<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(messages: Vec<T>) {
        for message in messages {
            let mut value = serde_json::to_value(&message).unwrap();
            for part in ["request", "own", "entries", "part", "runs", "refused"] {
                if let Some(fields) = value.get_mut(part).and_then(Value::as_object_mut) {
                    fields.insert("of_a_later_version".into(), json!({"x": 1}));
                }
            }
            assert_eq!(serde_json::from_value::<T>(value).unwrap(), message);
        }
    }
    survives(passed());
    survives(told());
}
