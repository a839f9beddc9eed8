//! Verbs that show something, and what is said when they cannot.

use gossip::wire::{Call, JobName, usage::UsageBy};
use serde_json::json;

use crate::fake::{Done, Fake, Step, end, item};

#[test]
fn each_verb_asks_its_question_and_prints_the_answer_as_it_came() {
    let answer = json!({"as_of": "2026-05-04T12:00:00Z", "stale": false, "missing": [], "items": [], "new": {"x": [1]}});
    let fake = Fake::new({
        let answer = answer.clone();
        move |_, _| vec![item(answer.clone()), end()]
    });
    let job = || JobName { owner: None, name: "web".into() };
    let verbs: [(&[&str], Call); 13] = [
        (&["jobs"], Call::Jobs),
        (&["job", "web"], Call::Job { job: job() }),
        (&["tasks"], Call::Tasks { job: None }),
        (&["tasks", "web"], Call::Tasks { job: Some(job()) }),
        (&["task", "web/2"], Call::Task { job: job(), index: 2 }),
        (&["why", "web"], Call::Why { job: job(), index: None }),
        (&["why", "web/2"], Call::Why { job: job(), index: Some(2) }),
        (&["nodes"], Call::Nodes),
        (&["image", "ls"], Call::ImageLs),
        (&["top", "-n", "1"], Call::Top),
        (
            &["advise", "web", "--risk", "2%"],
            Call::Advise { job: Some(job()), risk: 0.02, enough_ms: 3_600_000 },
        ),
        (&["usage"], Call::Usage { by: UsageBy::Band }),
        (&["usage", "--by", "job"], Call::Usage { by: UsageBy::Job }),
    ];
    for (n, (args, call)) in verbs.into_iter().enumerate() {
        let mut args = args.to_vec();
        args.push("--json");
        let done = fake.covey(&args);
        assert_eq!(
            (done.code, done.out, done.err.as_str()),
            (Some(0), format!("{answer}\n"), ""),
            "{args:?}"
        );
        assert_eq!(fake.calls()[n], call);
    }
}

#[test]
fn no_agent_is_said_with_the_way_to_one() {
    let fake = Fake::new(|_, _| vec![]);
    let covey = |args: &[&str]| {
        let mut args = args.to_vec();
        args.extend(["--socket", "/nonexistent/agent.sock"]);
        fake.covey(&args)
    };
    let done = covey(&["jobs"]);
    let wanted = "covey: cannot list jobs: no agent runs here (nothing listens on /nonexistent/agent.sock)\n  \
                  hint: start one with `covey dev` or `covey agent`";
    assert!(done.code == Some(1) && done.err.starts_with(wanted), "{done:?}");
    assert_eq!(covey(&["logs", "-f", "web/0", "--json"]).json()["error"]["code"], "no_agent");
}

#[test]
fn an_agent_of_another_kind_is_no_crash() {
    let fake = Fake::new(|_, _| vec![Step::Say(gossip::wire::Reply::Item(json!(17))), end()]);
    for verb in [
        &["jobs"][..],
        &["tasks"],
        &["nodes"],
        &["image", "ls"],
        &["events"],
        &["job", "a"],
        &["why", "a"],
        &["task", "a/0"],
        &["usage"],
        &["advise"],
        &["advise", "--apply"],
        &["top", "-n", "1"],
    ] {
        assert_eq!(fake.covey(verb).code, Some(0), "{verb:?}");
    }
}

#[test]
fn wrong_arguments_end_with_2_and_the_form() {
    let fake = Fake::new(|_, _| panic!("asked"));
    let cases: [(&[&str], &str); 16] = [
        (&["task", "web"], "JOB/INDEX, for instance web/0"),
        (&["job", "web/0"], "a job has the form NAME or OWNER/NAME"),
        (&["logs", "Web/0"], "is not a name"),
        (&["scale", "web", "many"], "that is not a whole number from 0 up"),
        (&["scale", "web", "-1"], "that is not a whole number from 0 up"),
        (&["run", "f", "--set", "x"], "KEY=VALUE"),
        (&["run", "f", "--timeout", "3s"], "--wait"),
        (&["run", "f", "--wait", "--timeout", "soon"], "500ms, 30s, 2m"),
        (&["events", "--since", "tomorrow"], "an age"),
        (&["usage", "--by", "color"], "by band, owner, job, node or task"),
        (&["advise", "--risk", "some"], "low, normal, high"),
        (&["top", "--interval", "1ms"], "from 200ms"),
        (&["top", "-n", "0"], "it is a number of looks, 1 or more"),
        (&["top", "-n", "-1"], "it is a number of looks, 1 or more"),
        (&["logs", "--tail", "-1", "web/0"], "that is not a whole number from 0 up"),
        (&["dance", "n1"], "unrecognized subcommand"),
    ];
    for (args, wanted) in cases {
        let done = fake.covey(args);
        assert!(
            done.code == Some(2) && done.err.contains(wanted) && done.out.is_empty(),
            "{args:?}: {done:?}"
        );
    }
    let done = fake.covey(&["task", "web", "--json"]);
    assert_eq!((done.code, &done.json()["error"]["code"]), (Some(2), &json!("invalid")));
}

#[test]
fn help_teaches() {
    let fake = Fake::new(|_, _| panic!("asked"));
    let tour = fake.covey(&["--help"]).out;
    for line in ["A short tour", "covey run web.toml --wait", "covey why web", "A smallest job file"] {
        assert!(tour.contains(line), "{line}");
    }
    let verbs: Vec<_> = tour
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() >= 13, "{verbs:?}");
    for verb in verbs {
        let help = fake.covey(&[verb, "--help"]).out;
        assert!(
            help.contains("Example") || ["image", "node", "context", "simulate"].contains(&verb),
            "{verb}: {help}"
        );
    }
    for verb in [
        "simulate overcommit",
        "image load",
        "image ls",
        "image rm",
        "volume ls",
        "volume rm",
        "node rm",
        "cell set",
        "context ls",
        "context use",
    ] {
        let args: Vec<_> = verb.split(' ').chain(["--help"]).collect();
        assert!(fake.covey(&args).out.contains("Example"), "{verb}");
    }
    let bare = Done::of(fake.command(&[]).output().unwrap());
    assert!(bare.code == Some(2) && bare.err.contains("A short tour"), "{bare:?}");
}
