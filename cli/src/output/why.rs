//! Why something does not run.

use serde_json::Value;

use super::{caveats, field, shown, task::reason, whose};

/// One task's document, or the list of a job's.
pub(crate) fn why(document: &Value) -> String {
    let Some(tasks) = document["items"].as_array() else { return of_task(document, 0) };
    let well = |task: &Value| {
        matches!(task["state"].as_str(), Some("running" | "succeeded"))
            && task["obstacles"].as_array().is_none_or(Vec::is_empty)
    };
    let (well, ill): (Vec<_>, Vec<_>) = tasks.iter().partition(|task| well(task));
    let alike = |one: &&Value, other: &&Value| {
        ["state", "reason", "obstacles", "fixes"].iter().all(|what| one[*what] == other[*what])
    };
    let groups = ill.chunk_by(alike);
    let mut text: String = groups.map(|group| of_task(group[0], group.len() - 1)).collect();
    text.push_str(&match (well.len(), text.is_empty()) {
        (0, true) => "it wants no tasks\n".to_owned(),
        (0, false) => String::new(),
        (count, true) => format!("nothing is in the way of its tasks: {count} run or have succeeded\n"),
        (count, false) => format!("{count} other tasks run or have succeeded\n"),
    });
    text + &caveats(document)
}

/// A task, and so many more of the job of which the same is to be said.
fn of_task(document: &Value, more: usize) -> String {
    let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let (obstacles, fixes) = (list("obstacles"), list("fixes"));
    // Often the first obstacle.
    let reason = reason(document).filter(|why| !obstacles.iter().any(|o| field(o, "text") == *why));
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    let (task, state) = (whose(document, "job"), field(document, "state"));
    let mut text = match more {
        0 => format!("{task} is {state}{reason}\n"),
        more => format!("{task} and {more} more are {state}{reason}\n"),
    };
    match document["state"].as_str() {
        Some("running" | "succeeded") if obstacles.is_empty() => text.push_str("  nothing is in its way\n"),
        _ if obstacles.is_empty() && reason.is_empty() => {
            text.push_str("  no reason is known; try again in a moment\n")
        }
        _ => {}
    }
    for obstacle in obstacles {
        let said = field(&obstacle, "text");
        text.push_str(&format!("  {said}{}\n", nodes(&obstacle["nodes"], &said)));
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

/// The nodes on which it stands in the way, unless that was `said`: names, or their number.
fn nodes(nodes: &Value, said: &str) -> String {
    let names_it = |name: &str| said.split([' ', ':', ',']).any(|word| word == name);
    match nodes {
        Value::Array(names) if !names.is_empty() => {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).map(shown).collect();
            if names.iter().all(|name| names_it(name)) {
                return String::new();
            }
            format!(" (on {})", names.join(", "))
        }
        Value::Number(count) => format!(" (on {count} nodes)"),
        _ => String::new(),
    }
}
