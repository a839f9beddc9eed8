//! What a copy has copied.

use serde_json::Value;

use super::units;

/// `3 files, 1.2 MiB`.
pub(crate) fn copied(document: &Value) -> String {
    let number = |name: &str| document[name].as_u64().unwrap_or(0);
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    let files = number("files");
    let mut text = format!("{files} file{}, {}", plural(files), units::bytes(number("bytes")));
    let skipped = number("skipped");
    if skipped > 0 {
        text.push_str(&format!("; {skipped} socket{}, pipes or devices were left out", plural(skipped)));
    }
    text
}
