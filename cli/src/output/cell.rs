//! The cell.

use serde_json::Value;

use super::{field, shown};

pub(crate) fn cell(cell: &Value) -> String {
    let names: Vec<_> =
        cell["voters"].as_array().into_iter().flatten().filter_map(Value::as_str).map(shown).collect();
    let mut text = format!("cell {}", field(cell, "name"));
    if cell["changed"] == false {
        text.push_str(", unchanged");
    }
    text.push('\n');
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<11} {value}\n"));
    line("id", field(cell, "id"));
    line("nodes", field(cell, "nodes"));
    line("placer", field(cell, "placer"));
    line("voters", names.join(", "));
    for (key, value) in cell["settings"].as_object().into_iter().flatten() {
        let (key, value) = match (key.strip_suffix("_ms"), value.as_u64()) {
            (Some(key), Some(ms)) => (
                key,
                humantime::format_duration(std::time::Duration::from_millis(ms)).to_string().replace(' ', ""),
            ),
            _ => (key.as_str(), value.to_string()),
        };
        line(&shown(key).replace('_', "-"), shown(&value).into_owned());
    }
    text
}
