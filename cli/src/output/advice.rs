//! Limits that would fit.

use serde_json::Value;

use super::{
    caveats, field, items,
    job::version,
    table::{Look, Table},
    units::{Unit, bytes, cpu},
    whose,
};

pub(crate) fn advice(list: &Value) -> String {
    let mut table = Table::new(&[
        "JOB",
        ">TASKS",
        ">WATCHED",
        ">CPU LIMIT",
        ">FITS",
        ">HELD BACK",
        ">MEMORY LIMIT",
        ">FITS",
        ">KILLED/DAY",
        "ADVICE",
    ]);
    for item in items(list) {
        let enough = item["advice"] != "not_enough_history";
        let mut row =
            vec![whose(item, "job"), field(item, "count"), time(item["watched_s"].as_u64().unwrap_or(0))];
        for (resource, unit) in [("cpu", cpu as fn(u64) -> String), ("memory", bytes)] {
            let of = &item[resource];
            let amount = |name: &str| of[name].as_u64().map_or_else(|| "-".to_owned(), unit);
            row.push(amount("limit"));
            row.push(if enough { amount("advised") } else { "-".to_owned() });
            row.push(if enough { risks(of) } else { "-".to_owned() });
        }
        row.push(words(item, list));
        let look = match item["advice"].as_str() {
            Some("raise" | "change") => Look::Busy,
            Some("not_enough_history") => Look::Past,
            _ => Look::Plain,
        };
        table.row(look, row);
    }
    table.render("no jobs") + &sum(list) + &caveats(list)
}

/// The risk at the limit, and where another is advised at that.
fn risks(of: &Value) -> String {
    let now = percent(&of["risk_now"]);
    match of["set"].is_null() {
        true => now,
        false => format!("{now} → {}", percent(&of["risk"])),
    }
}

/// Nobody knows: `?`.
fn percent(share: &Value) -> String {
    match share.as_f64().map(|share| 100.0 * share) {
        None => "?".to_owned(),
        Some(percent) if percent < 0.005 => "0 %".to_owned(),
        Some(percent) if percent < 0.995 => format!("{percent:.2} %"),
        Some(percent) => format!("{percent:.0} %"),
    }
}

fn words(item: &Value, list: &Value) -> String {
    let saved = |name: &str| item["saved"][name].as_i64().unwrap_or(0);
    let amounts = |sign: i64| {
        let cpus = (saved("cpu_milli") * sign > 0).then(|| cpu(saved("cpu_milli").unsigned_abs()) + " CPU");
        let memory = (saved("memory_bytes") * sign > 0).then(|| bytes(saved("memory_bytes").unsigned_abs()));
        let both: Vec<String> = cpus.into_iter().chain(memory).collect();
        (!both.is_empty()).then(|| both.join(", "))
    };
    match item["advice"].as_str() {
        Some("not_enough_history") => {
            let enough = list["enough_s"].as_u64().unwrap_or(0);
            format!("not enough history: {} is wanted", time(enough))
        }
        Some("keep") => "as it is".to_owned(),
        _ => {
            let killed = item["kills"].as_f64().is_some_and(|kills| kills >= 0.5);
            let more = amounts(-1).map(|more| match killed {
                true => format!("takes {more} more; it was killed at its memory limit of late"),
                false => format!("takes {more} more"),
            });
            let saves = amounts(1).map(|saved| format!("saves {saved}"));
            saves.into_iter().chain(more).collect::<Vec<_>>().join("; ")
        }
    }
}

/// What all of it saves.
fn sum(list: &Value) -> String {
    let changes: Vec<&Value> = items(list).iter().filter(|item| changes(item)).collect();
    if changes.is_empty() {
        return String::new();
    }
    let saved = |name: &str| changes.iter().filter_map(|item| item["saved"][name].as_i64()).sum::<i64>();
    let signed = |amount: i64, unit: fn(u64) -> String| {
        format!("{}{}", if amount < 0 { "-" } else { "" }, unit(amount.unsigned_abs()))
    };
    format!(
        "in all {} CPU and {} of limits are saved; `covey advise --apply` changes {} in place, `covey advise JOB --apply` one\n",
        signed(saved("cpu_milli"), cpu),
        signed(saved("memory_bytes"), bytes),
        if changes.len() == 1 { "this job".to_owned() } else { format!("these {} jobs", changes.len()) },
    )
}

fn changes(item: &Value) -> bool {
    item["cpu"]["set"].is_string() || item["memory"]["set"].is_string()
}

/// What was done to one job.
pub(crate) fn applied(item: &Value) -> String {
    let job = whose(item, "job");
    let done = &item["applied"];
    if let Some(why) = done["error"]["message"].as_str() {
        let hint = done["error"]["hint"].as_str().map(|hint| format!("\n  hint: {}", super::shown(hint)));
        return format!("{job} is not changed: {}{}", super::shown(why), hint.unwrap_or_default());
    }
    let units: [(&str, Unit); 2] = [("cpu", cpu), ("memory", bytes)];
    let change = |(name, unit): (&str, fn(u64) -> String)| {
        let amount = |of: &str| item[name][of].as_u64().map_or_else(|| "-".to_owned(), unit);
        item[name]["set"].is_string().then(|| format!("{name} {} → {}", amount("limit"), amount("advised")))
    };
    let changed: Vec<String> = units.into_iter().filter_map(change).collect();
    let (tasks, same) = (done["tasks"].as_u64().unwrap_or(0), done["same_pid"].as_u64().unwrap_or(0));
    let how = match tasks {
        0 => "no task has it yet".to_owned(),
        tasks if tasks == same => format!("{tasks} running, none restarted"),
        tasks => format!("{tasks} running, {} restarted", tasks - same.min(tasks)),
    };
    format!(
        "changed {job} {} → {}: {}; {how}",
        version(&done["was"]),
        version(&done["version"]),
        changed.join(", ")
    )
}

fn time(s: u64) -> String {
    match s {
        0..120 => format!("{s}s"),
        120..7_200 if !s.is_multiple_of(3_600) => format!("{}m", s / 60),
        120..172_800 => format!("{}h", s / 3_600),
        _ => format!("{}d", s / 86_400),
    }
}
