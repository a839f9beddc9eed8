//! `covey simulate overcommit`: a trace in, rows out; what is wrong with a trace is said with its line.

use serde_json::Value;

use crate::fake::{Done, Fake};

const HEAD: &str = "time_s,node,task,band,cpu_limit_milli,cpu_milli,memory_limit_mib,memory_mib\n";

fn simulate(trace: &str, more: &[&str]) -> (Fake, Done) {
    let fake = Fake::new(|_, _| panic!("asked"));
    let file = fake.file("trace.csv", trace);
    let args = [&["simulate", "overcommit", "--trace", &file], more].concat();
    let done = fake.covey(&args);
    (fake, done)
}

/// Two tasks that use a tenth of their limits, for six hours.
fn trace() -> String {
    let row = |n: u32| {
        let (time, task) = (n / 2 * 300, n % 2);
        format!("{time},n1,web/{task},production,1000,{},1000,100\n", 100 + n % 7)
    };
    HEAD.to_owned() + &(0..144).map(row).collect::<String>()
}

#[test]
fn a_row_for_each_policy_and_resource() {
    let (_fake, done) = simulate(&trace(), &["--horizon", "1h", "--json"]);
    let document = done.json();
    assert_eq!((done.code, &document["rows"], &document["nodes"]), (Some(0), &144.into(), &1.into()));
    let rows = document["items"].as_array().unwrap();
    let of = |policy: &str, resource: &str| -> &Value {
        let wanted = |row: &&Value| row["policy"] == policy && row["resource"] == resource;
        rows.iter().find(wanted).unwrap_or_else(|| panic!("{policy} {resource}: {document}"))
    };
    for policy in ["covey", "limit", "borg-default", "rc-like", "n-sigma", "max", "const", "oracle"] {
        for resource in ["cpu", "memory"] {
            let row = of(policy, resource);
            let saved = row["savings_ratio"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&saved) && row["samples"] == 72, "{row}");
        }
    }
    assert_eq!(of("limit", "cpu")["savings_ratio"], 0.0);
    let oracle = of("oracle", "memory")["savings_ratio"].as_f64().unwrap();
    assert!((oracle - 0.9).abs() < 1e-9, "{oracle}");
}

#[test]
fn predictions_are_written_for_others_to_check() {
    let (fake, _) = simulate(&trace(), &[]);
    let file = fake.file("predictions.csv", "");
    let trace = fake.file("trace.csv", &trace());
    let args = ["simulate", "overcommit", "--trace", &trace, "--policy", "max", "--predictions", &file];
    assert_eq!(fake.covey(&args).code, Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines.len()), ("time_s,node,policy,predicted_peak_milli", 73));
    assert!(lines[1].starts_with("0,n1,max,"), "{}", lines[1]);
}

#[test]
fn what_is_wrong_with_a_trace_is_said_with_its_line() {
    let good = "0,n1,web/0,production,1000,100,1000,100\n";
    let cases = [
        (format!("{HEAD}{good}300,n1,web/0,production,1000,much,1000,100\n"), "trace.csv:3: "),
        (format!("{HEAD}{good}300,n1\n"), "trace.csv:3: "),
        (format!("{HEAD}300,n1,web/0,pink,1000,100,1000,100\n"), "trace.csv:2: "),
        ("time,what\n".to_owned(), "trace.csv:1: "),
        (format!("{HEAD}{good}{good}").replacen("0,n1", "300,n1", 1), "trace.csv:3: "),
    ];
    for (trace, line) in cases {
        let (_fake, done) = simulate(&trace, &[]);
        assert!(done.code == Some(1) && done.err.contains(line) && done.out.is_empty(), "{trace}{done:?}");
        assert!(done.err.contains("covey simulate overcommit --help"), "{done:?}");
    }
    let fake = Fake::new(|_, _| panic!("asked"));
    let done = fake.covey(&["simulate", "overcommit", "--trace", "/nonexistent/trace.csv", "--json"]);
    let error = &done.json()["error"];
    assert!(
        done.code == Some(1) && error["message"].as_str().unwrap().contains("/nonexistent/trace.csv"),
        "{done:?}"
    );
    assert!(error["hint"].as_str().unwrap().contains("CSV"), "{done:?}");
}
