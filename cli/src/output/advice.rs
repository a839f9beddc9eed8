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
        let enough = is_old_enough(item);
        let mut row =
            vec![whose(item, "job"), field(item, "count"), time(item["watched_s"].as_u64().unwrap_or(0))];
        for (resource, unit) in [("cpu", cpu as fn(u64) -> String), ("memory", bytes)] {
            let of = &item[resource];
            let amount = |name: &str| of[name].as_u64().map_or_else(|| "-".to_owned(), unit);
            row.push(amount("limit"));
            let known = enough && is_known(of);
            row.push(if known { amount("advised") } else { "-".to_owned() });
            row.push(if known { risks(of) } else { "-".to_owned() });
        }
        row.push(words(item, list));
        let look = match item["advice"].as_str() {
            Some("raise" | "change") => Look::Busy,
            Some("not_enough_history") => Look::Past,
            _ => Look::Plain,
        };
        table.row(look, row);
    }
    table.render("no jobs") + &blanks(list) + &sum(list) + &caveats(list)
}

/// Watched for as long as was asked for.
fn is_old_enough(item: &Value) -> bool {
    item["advice"] != "not_enough_history"
}

/// Whether a node remembers anything of its use.
fn is_known(of: &Value) -> bool {
    !of["risk_now"].is_null()
}

/// What `-` and `?` in the table mean, where they are.
fn blanks(list: &Value) -> String {
    let of = |name: &str, is: fn(&Value) -> bool| {
        items(list).iter().any(|item| is_old_enough(item) && is(&item[name]))
    };
    let unsure = |of: &Value| is_known(of) && of["set"].is_string() && of["risk"].is_null();
    let mut text = String::new();
    if of("cpu", |cpu| !is_known(cpu)) {
        text.push_str("-  no node remembers how much CPU the job's tasks used\n");
    } else if of("memory", |memory| !is_known(memory)) {
        text.push_str(
            "-  no node remembers how much memory the job's tasks used; that comes after ten minutes, or when one ends\n",
        );
    }
    if of("cpu", unsure) || of("memory", unsure) {
        text.push_str("?  nobody knows: it never had so much\n");
    }
    text
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
            match item["watched_s"].as_u64().unwrap_or(0) {
                watched if watched < enough => format!("not enough history: {} is wanted", time(enough)),
                _ => "nothing is remembered of it".to_owned(),
            }
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

/// Nothing was to be changed, and why.
pub(crate) fn nothing_to_apply(list: &Value) -> String {
    let young = items(list).iter().filter(|item| !is_old_enough(item)).count();
    let seen = match list["enough_s"].as_u64() {
        Some(0) | None => "seen".to_owned(),
        Some(s) => format!("watched for {}", time(s)),
    };
    let why = match (items(list).len(), young) {
        (0, _) => "there is no job".to_owned(),
        (1, 0) => "the limits of the job fit".to_owned(),
        (_, 0) => "the limits of all jobs fit".to_owned(),
        (all, young) if all == young => {
            format!("no job was {seen} yet; --history says how much is enough")
        }
        (_, young) => format!(
            "the limits of the other jobs fit, and {young} {} not {seen} yet; --history says how much is enough",
            if young == 1 { "was" } else { "were" }
        ),
    };
    format!("nothing was changed: {why}\n")
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
