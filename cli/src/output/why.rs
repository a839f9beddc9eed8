//! Why something does not run.

use serde_json::Value;

use super::{caveats, field, shown, task::reason, whose};

/// One task's document, or the list of a job's.
pub(crate) fn why(document: &Value) -> String {
    let Some(tasks) = document["items"].as_array() else { return of_task(document) };
    let well = |task: &Value| {
        matches!(task["state"].as_str(), Some("running" | "succeeded"))
            && task["obstacles"].as_array().is_none_or(Vec::is_empty)
    };
    let (well, ill): (Vec<_>, Vec<_>) = tasks.iter().partition(|task| well(task));
    let mut text: String = ill.into_iter().map(of_task).collect();
    text.push_str(&match (well.len(), text.is_empty()) {
        (0, true) => "it wants no tasks\n".to_owned(),
        (0, false) => String::new(),
        (count, true) => format!("nothing is in the way of its tasks: {count} run or have succeeded\n"),
        (count, false) => format!("{count} other tasks run or have succeeded\n"),
    });
    text + &caveats(document)
}

fn of_task(document: &Value) -> String {
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let (obstacles, fixes) = (list("obstacles"), list("fixes"));
    // Often the first obstacle.
    let reason = reason(document).filter(|why| !obstacles.iter().any(|o| field(o, "text") == *why));
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    let mut text = format!("{} is {}{reason}\n", whose(document, "job"), field(document, "state"));
    match document["state"].as_str() {
        Some("running" | "succeeded") if obstacles.is_empty() => text.push_str("  nothing is in its way\n"),
        _ if obstacles.is_empty() && reason.is_empty() => {
            text.push_str("  no reason is known; try again in a moment\n")
        }
        _ => {}
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
