//! Texts with the expected answers below each line of input. `UPDATE=1` rewrites the answers.

#![allow(dead_code, reason = "each test uses its half")]

use std::fs;

/// `answer` gives the indented lines below an input line; blank lines and comments (`#`) stay as they are.
pub(crate) fn check(path: &str, mut answer: impl FnMut(&str) -> String) {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let before = fs::read_to_string(&path).unwrap();
    let mut after = String::new();
    let mut inputs = 0;
    for line in before.lines().filter(|line| !line.starts_with(' ')) {
        after += &format!("{line}\n");
        if !line.is_empty() && !line.starts_with('#') {
            after += &answer(line);
            inputs += 1;
        }
    }
    assert!(inputs > 0, "{path} holds nothing to check");
    same(&path, &before, &after);
}

/// Compares a whole file with what it should hold.
pub(crate) fn whole(path: &str, now: &str) {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    same(&path, &fs::read_to_string(&path).unwrap_or_default(), now);
}

fn same(path: &str, before: &str, after: &str) {
    if before == after {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, after).unwrap();
        return;
    }
    let at = before.lines().zip(after.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_string();
    panic!(
        "{path}:{}\n  expected: {}\n  got:      {}\nUPDATE=1 rewrites the file",
        at + 1,
        line(before),
        line(after)
    );
}
