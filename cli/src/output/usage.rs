//! Limits, reservations and use.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    caveats, field, items, shown,
    table::{Look, Table},
    units::{RESOURCES, amount, bytes, cpu},
    whose,
};

/// How much of a resource is shown.
const AMOUNTS: [(&str, &str); 4] =
    [("LIMIT", "limit"), ("RESERVED", "reservation"), ("USED", "usage"), ("RECLAIMED", "reclaimed")];

pub(crate) fn usage(document: &Value) -> String {
    let by = document["by"].as_str().unwrap_or("band");
    let evictions = by == "band";
    let mut head = vec![by.to_uppercase(), ">TASKS".to_owned()];
    for (resource, ..) in RESOURCES {
        head.extend(AMOUNTS.iter().enumerate().map(|(n, (name, _))| match n {
            0 => format!(">{resource} {name}"),
            _ => format!(">{name}"),
        }));
    }
    head.extend(evictions.then(|| ">EVICTED".to_owned()));
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut table = Table::new(&head);
    for item in items(document) {
        table.row(Look::Plain, row(&name(item, by), item, evictions));
    }
    if evictions {
        for (name, sum) in [("prod", "prod"), ("non-prod", "non_prod")] {
            table.row(Look::Past, row(name, &document[sum], evictions));
        }
    }
    table.row(Look::Past, row("total", &document["total"], evictions));
    let notice = if evictions { notice(&document["total"]["notice"]) } else { String::new() };
    let waits = if evictions { waits(document) } else { String::new() };
    table.render("") + &others(document) + &cell(document) + &waits + &notice + &caveats(document)
}

fn name(item: &Value, by: &str) -> String {
    match by {
        "job" | "task" => whose(item, "job"),
        other => field(item, other),
    }
}

fn row(name: &str, item: &Value, evictions: bool) -> Vec<String> {
    let mut cells = vec![name.to_owned(), field(item, "tasks")];
    for (_, resource, unit) in RESOURCES {
        cells.extend(AMOUNTS.iter().map(|(_, of)| amount(&item[of], resource, unit)));
    }
    cells.extend(evictions.then(|| item["evicted"]["day"].as_u64().unwrap_or(0).to_string()));
    cells
}

/// Resources beside CPU and memory that somebody has a limit of: a line each.
fn others(document: &Value) -> String {
    let total = &document["total"];
    let names: BTreeSet<&String> =
        total["limit"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
    let others = names.into_iter().filter(|name| RESOURCES.iter().all(|(_, known, _)| known != name));
    let line = |name: &String| {
        let unit = |amount: u64| if name.ends_with("_bytes") { bytes(amount) } else { amount.to_string() };
        let amount = |of: &str| unit(total[of][name].as_u64().unwrap_or(0));
        let short = name.strip_suffix("_bytes").unwrap_or(name);
        format!("{}: limits {}, used {}\n", shown(short), amount("limit"), amount("usage"))
    };
    others.map(line).collect()
}

/// What bands wait for, if any does for long enough to be told of.
fn waits(document: &Value) -> String {
    let of = |item: &Value| {
        let share = |(what, key): &(&str, &str)| {
            let percent = item["strain"][key].as_u64().unwrap_or(0) / 10;
            (percent > 0).then(|| format!("{percent} % of the time for {what}"))
        };
        let all: Vec<String> = WAITS.iter().filter_map(share).collect();
        (!all.is_empty()).then(|| format!("{} {}", name(item, "band"), all.join(", ")))
    };
    let all: Vec<String> = items(document).iter().filter_map(of).collect();
    match all.is_empty() {
        true => String::new(),
        false => format!("waits, on the node where they are longest: {}\n", all.join("; ")),
    }
}

const WAITS: [(&str, &str); 3] = [
    ("CPU", "waits_for_cpu_permille"),
    ("memory", "waits_for_memory_permille"),
    ("IO", "waits_for_io_permille"),
];

/// Whether tasks had time to end when they were told to.
fn notice(notice: &Value) -> String {
    let of = |of: &Value| (of["told"].as_u64().unwrap_or(0), of["notified"].as_u64().unwrap_or(0));
    let (told, notified) = of(notice);
    if told == 0 {
        return String::new();
    }
    // Rounded down: one that had no time is not to be lost.
    let permille = notified * 1000 / told;
    let percent = match permille % 10 {
        0 => format!("{} %", permille / 10),
        tenths => format!("{}.{tenths} %", permille / 10),
    };
    let short = notice["causes"].as_object().into_iter().flatten().filter_map(|(cause, sum)| {
        let (told, notified) = of(sum);
        (notified < told).then(|| format!("{} {}", told - notified, shown(cause)))
    });
    let short: Vec<String> = short.collect();
    let short = if short.is_empty() { String::new() } else { format!("; the others: {}", short.join(", ")) };
    format!(
        "notice: {notified} of {told} that were told to end within a day had their whole grace, or ended within it ({percent}){short}\n"
    )
}

/// What there is, and what more may be asked for.
fn cell(document: &Value) -> String {
    let amounts = |of: &Value| {
        let amount = |name: &str| of[name].as_u64().unwrap_or(0);
        format!("{} CPU, {}", cpu(amount("cpu_milli")), bytes(amount("memory_bytes")))
    };
    let nodes = match document["nodes"].as_u64() {
        Some(1) => "1 node has".to_owned(),
        nodes => format!("{} nodes have", nodes.unwrap_or(0)),
    };
    let kept = document["kept"]["memory_bytes"].as_u64().filter(|kept| *kept > 0);
    let kept = kept.map(|kept| format!(", {} more being kept free for prod", bytes(kept)));
    format!(
        "{nodes} {}; room for prod {}, for batch and free {}{}\n",
        amounts(&document["capacity"]),
        amounts(&document["room"]["prod"]),
        amounts(&document["room"]["non_prod"]),
        kept.unwrap_or_default(),
    )
}
