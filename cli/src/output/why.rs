//! Why something does not run.

use serde_json::Value;

use super::{field, shown, whose};

pub(crate) fn why(document: &Value) -> String {
    let mut text = format!("{} is {}\n", whose(document, "job"), field(document, "state"));
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let (obstacles, fixes) = (list("obstacles"), list("fixes"));
    if obstacles.is_empty() {
        text.push_str("  nothing is in its way\n");
    }
    for obstacle in obstacles {
        text.push_str(&format!("  {}{}\n", field(&obstacle, "text"), nodes(&obstacle["nodes"])));
    }
    if !fixes.is_empty() {
        text.push_str("what would help, cheapest first:\n");
    }
    for fix in fixes {
        match (fix["command"].as_str(), fix["text"].as_str()) {
            (Some(command), Some(what)) => {
                text.push_str(&format!("  {}\n      {}\n", shown(command), shown(what)));
            }
            (one, other) => text.push_str(&format!("  {}\n", shown(one.or(other).unwrap_or("-")))),
        }
    }
    text
}

/// The nodes on which it stands in the way: names, or their number.
fn nodes(nodes: &Value) -> String {
    match nodes {
        Value::Array(names) if !names.is_empty() => {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).map(shown).collect();
            format!(" (on {})", names.join(", "))
        }
        Value::Number(count) => format!(" (on {count} nodes)"),
        _ => String::new(),
    }
}
