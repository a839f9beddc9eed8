//! Messages as they are written, line by line, against `golden/NAME.jsonl`. `UPDATE=1` rewrites the file.

use std::{env, fs, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};

/// A line for each message, which is read back as what was written.
pub(crate) fn lines<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    messages: Vec<T>,
) -> Vec<String> {
    let line = |message: T| {
        let line = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<T>(&line).unwrap(), message);
        line
    };
    messages.into_iter().map(line).collect()
}

pub(crate) fn frozen(name: &str, now: &[String]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.jsonl"));
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, now.join("\n") + "\n").unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    for (number, (now, golden)) in now.iter().zip(golden.lines()).enumerate() {
        assert_eq!(now, golden, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(now.len(), golden.lines().count(), "lines of {}", path.display());
}
