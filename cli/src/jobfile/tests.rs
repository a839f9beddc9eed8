#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use super::*;
use crate::failure::Failure;

/// `=== FILE ARGUMENTS`, the file's text, `---`, what is said about it. `UPDATE=1` writes what is said anew.
#[test]
fn what_is_said_about_bad_job_files() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bad_jobs.txt");
    let golden = std::fs::read_to_string(&path).unwrap();
    let mut said = String::new();
    for case in golden.split("=== ").skip(1) {
        let (head, rest) = case.split_once('\n').unwrap();
        let (text, _) = rest.split_once("---").unwrap();
        let why = parse_with(head, text).expect_err(head);
        said.push_str(&format!("=== {head}\n{text}---\n{}\n", Failure::from(why).explain("run it")));
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &said).unwrap();
    }
    assert!(said == golden, "what is said has changed; see `git diff` after UPDATE=1:\n{said}");
}

/// A file's text with the arguments behind the file's name.
fn parse_with(head: &str, text: &str) -> Result<JobFile, JobFileError> {
    let (file, arguments) = head.split_once(" --").unwrap_or((head, ""));
    let sets: Vec<Set> = match arguments.split_once(' ') {
        Some(("set", set)) => vec![set.parse().unwrap()],
        Some(("count", count)) => vec![Set::count(count.parse().unwrap())],
        _ => Vec::new(),
    };
    parse(file, text, &sets)
}

#[test]
fn the_same_job_in_toml_and_json_is_the_same_document() {
    let toml = r#"
        name = "web"
        count = 0x10
        require = ["arch=x86_64"]
        [task]
        image = "hello:1"
        cpu = 0.5
        env = { GREETING = "h\u00ef" }
        ports = ["http"]
        health.http = "/healthz"
        health.port = "http"
        [[override]]
        index = [2, 3]
        memory = "1GiB"
    "#;
    let json = r#"{"name": "web", "count": 16, "require": ["arch=x86_64"], "task": {"image": "hello:1",
        "cpu": 0.5, "env": {"GREETING": "hï"}, "ports": ["http"], "health": {"http": "/healthz", "port": "http"}},
        "override": [{"index": [2, 3], "memory": "1GiB"}]}"#;
    let (toml, json) = (parse("a.toml", toml, &[]).unwrap(), parse("a.json", json, &[]).unwrap());
    assert_eq!(toml.document, json.document);
    assert_eq!(toml.job, json.job);
    assert_eq!(toml.job.count, 16);
}

#[test]
fn a_byte_order_mark_and_other_line_ends_are_no_news() {
    let text = "\u{feff}name = \"web\"\r\n[task]\r\nimage = \"hello:1\"\r\ncolour = 1\r\n";
    let why = parse("web.toml", text, &[]).unwrap_err();
    let (line, column) = why.excerpt().map(|e| (e.line, e.column)).unwrap();
    assert_eq!((line, column), (4, 1));
    assert!(!why.excerpt().unwrap().to_string().contains('\r'));
}

const WEB: &str = "name = \"web\"\n[task]\nimage = \"hello:1\"\nports = [\"http\"]\n";

fn with(sets: &[&str]) -> Value {
    let sets: Vec<Set> = sets.iter().map(|text| text.parse().unwrap()).collect();
    parse("web.toml", WEB, &sets).unwrap().document
}

#[test]
fn values_of_the_command_line_are_toml_or_text() {
    assert_eq!(with(&["count=3"])["count"], 3);
    assert_eq!(with(&["task.memory=64MiB"])["task"]["memory"], "64MiB");
    assert_eq!(with(&["task.memory=\"64MiB\""])["task"]["memory"], "64MiB");
    assert_eq!(with(&["task.image=hello=2"])["task"]["image"], "hello=2");
    assert_eq!(with(&["task.command=[\"/hello\", \"--tick\", \"5\"]"])["task"]["command"][2], "5");
    assert_eq!(with(&["task.ports.0=web"])["task"]["ports"][0], "web");
    assert_eq!(with(&["task.env.DAY=2026-05-04", "task.env.N=7"])["task"]["env"]["DAY"], "2026-05-04");
    assert_eq!(with(&["task.env.N=7"])["task"]["env"]["N"], "7");
    assert_eq!(with(&["task.env.EMPTY="])["task"]["env"]["EMPTY"], "");
    assert_eq!(with(&["count=3", "count=4"])["count"], 4);
}

#[test]
fn what_is_no_setting_is_refused_with_the_form() {
    for text in ["count", "=3", "a b=3", "a..b=3", "", "a\nb=3", "[task]=3"] {
        assert!(text.parse::<Set>().unwrap_err().contains("KEY=VALUE"), "{text}");
    }
}

#[test]
fn files_that_are_no_text_or_too_long_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("job");
    std::fs::write(&path, b"name = \"w\xff\"").unwrap();
    assert!(matches!(read(&path, &[]).unwrap_err(), JobFileError::NotText { at: 9, .. }));
    std::fs::write(&path, vec![b'#'; usize::try_from(MAX).unwrap() + 1]).unwrap();
    assert!(matches!(read(&path, &[]).unwrap_err(), JobFileError::TooLong { .. }));
    assert!(matches!(read(dir.path(), &[]).unwrap_err(), JobFileError::Read { .. }));
    assert!(read(&dir.path().join("none"), &[]).unwrap_err().hint().is_some());
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    for text in ["a=".to_owned() + &"[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        assert!(parse("deep", &text, &[]).is_err());
    }
}

/// What the fuzzer found worth keeping, and seeds for it.
#[test]
fn the_fuzz_corpus_is_read_without_a_panic() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/jobfile");
    let mut read = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        if let Ok(text) = std::str::from_utf8(&bytes) {
            explained(text);
        }
        read += 1;
    }
    assert!(read >= 20, "only {read} files");
}

/// Whatever the text, its errors can be shown.
fn explained(text: &str) {
    if let Err(why) = parse("fuzz", text, &[]) {
        let failure = Failure::from(why);
        assert!(!failure.explain("run it").is_empty() && failure.document()["error"]["message"].is_string());
    }
}

proptest::proptest! {
    /// Corpora of whole files cut and stitched at random places.
    #[test]
    fn mangled_files_are_read_without_a_panic(a in 0usize..4000, b in 0usize..4000, c in 0usize..4000) {
        let golden = include_str!("../../tests/golden/bad_jobs.txt").as_bytes();
        let part = |from: usize, to: usize| {
            let (from, to) = (from.min(golden.len()), to.min(golden.len()));
            String::from_utf8_lossy(&golden[from.min(to)..to.max(from)]).into_owned()
        };
        explained(&part(a, b));
        explained(&format!("{}{}", part(a, a + 60), part(c, c + 60)));
    }
}

#[test]
fn a_file_of_the_greatest_size_is_read_in_no_time() {
    let keys: Vec<String> = (0..70_000).map(|n| format!("\"k{n}\": 1")).collect();
    let json = format!("{{{}}}", keys.join(","));
    let lines: Vec<String> = (0..70_000).map(|n| format!("k{n} = 1")).collect();
    let begin = std::time::Instant::now();
    for text in [json, lines.join("\n")] {
        assert!(text.len() < usize::try_from(MAX).unwrap());
        assert!(parse("big", &text, &[]).is_err());
    }
    // What is quadratic takes minutes.
    assert!(begin.elapsed().as_secs() < 30, "{:?}", begin.elapsed());
}
