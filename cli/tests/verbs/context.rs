//! Which agent is asked, and with whose credentials.

use gossip::wire::Call;
use serde_json::json;

use crate::fake::{Fake, end, item};

#[test]
fn without_a_login_there_is_only_this_machine() {
    let fake = Fake::new(|_, _| vec![item(json!({"items": []})), end()]);
    let list = fake.covey(&["context", "ls", "--json"]).json();
    assert_eq!(list["items"], json!([{"name": "local", "current": true}]));
    assert_eq!(fake.covey(&["jobs"]).code, Some(0));

    let done = fake.covey(&["jobs", "--node", "n1:7411"]);
    assert_eq!(done.code, Some(1));
    let said = "covey: cannot list jobs: to talk to n1:7411 takes credentials, and there are none yet\n  hint: `covey token";
    assert!(done.err.starts_with(said) && done.err.contains("covey login --node n1:7411"), "{done:?}");
    let done = fake.covey(&["context", "use", "lab"]);
    assert_eq!(
        done.err,
        "covey: cannot use context lab: there is no context `lab`: `covey login` makes one\n"
    );
    assert_eq!(fake.covey(&["context", "use", "local"]).code, Some(0));
    assert_eq!(fake.calls(), [Call::Jobs]);
}

/// `--node` names the node to ask, and for `events` also one that is asked about.
#[test]
fn a_node_to_ask_has_a_port() {
    let fake = Fake::new(|_, _| vec![item(json!({"items": []})), end()]);
    assert_eq!(fake.covey(&["events", "--node", "n1"]).code, Some(0));
    let of_n1 = Call::Events { job: None, node: Some("n1".into()), since_ms: None, follow: false };
    assert_eq!(fake.calls(), [of_n1]);
    for args in [
        &["events", "--node", "n1:7411"][..],
        &["events", "--node", "n1", "--node", "n2:7411"],
        &["--node", "n2:1", "jobs"],
    ] {
        let done = fake.covey(args);
        assert!(done.code == Some(1) && done.err.contains("takes credentials"), "{args:?}: {done:?}");
    }
    // Names of nodes are not taken for nodes to ask.
    assert_eq!(fake.covey(&["undrain", "n1"]).code, Some(0));
    for args in [&["jobs", "--node", "n1"][..], &["jobs", "--node", ":7"], &["events", "--node", "n1:x"]] {
        let done = fake.covey(args);
        assert!(done.code == Some(2) && done.err.contains("HOST:PORT"), "{args:?}: {done:?}");
    }
}

#[test]
fn a_context_that_cannot_be_read_is_named() {
    let fake = Fake::new(|_, _| panic!("asked"));
    let dir = fake.config().join("covey/contexts");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("lab.json"), "{").unwrap();
    std::fs::write(fake.config().join("covey/current"), "lab\n").unwrap();
    let done = fake.covey(&["jobs"]);
    assert!(done.code == Some(1) && done.err.contains("contexts/lab.json holds no context"), "{done:?}");
    let list = fake.covey(&["context", "ls", "--json"]).json();
    assert!(list["items"][1]["error"].as_str().unwrap().contains("holds no context"), "{list}");
    // The way out.
    assert_eq!(fake.covey(&["context", "use", "local"]).code, Some(0));
}

#[test]
fn a_login_says_what_it_lacks() {
    let fake = Fake::new(|_, _| panic!("asked"));
    let token = format!("covey1.{}.{}", "ab".repeat(32), "07".repeat(16));
    let cases: [(&[&str], i32, &str); 6] = [
        (&["login", "--token", &token], 2, "--node HOST:PORT"),
        (&["login", "--node", "n1:7411"], 2, "COVEY_TOKEN"),
        (&["login", "--node", "n1:7411", "--token", "secret"], 1, "this is not a join token"),
        (&["login", "--node", "n1:7411", "--token", &token[..40]], 1, "the token is damaged"),
        (
            &["login", "--node", "n1:7411", "--token", "@/nonexistent"],
            1,
            "cannot read the token in /nonexistent",
        ),
        (&["login", "--node", "n1:7411", "--token", &token, "--context", "local"], 2, "not `local`"),
    ];
    for (args, code, wanted) in cases {
        let done = fake.covey(args);
        assert!(done.code == Some(code) && done.err.contains(wanted), "{args:?}: {done:?}");
    }
}
