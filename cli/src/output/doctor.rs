//! What is wrong with the cell: its nodes, the ways between them, and the findings.

use serde_json::Value;

use super::{
    field, items, shown,
    table::{Look, Table},
    units::bytes,
};

/// The ways between more nodes than this make no table that anybody reads.
const MATRIX: usize = 12;

pub(crate) fn doctor(document: &Value) -> String {
    let mut text = nodes(document);
    text.push('\n');
    text.push_str(&ways(document));
    let findings = items(document);
    for finding in findings.iter().filter(|finding| !is_hint(finding)) {
        let mark = if is_wrong(finding) { "wrong" } else { "note" };
        text.push_str(&format!(
            "{mark}: {}\n  that means: {}\n  to do: {}\n",
            field(finding, "text"),
            field(finding, "means"),
            field(finding, "hint")
        ));
    }
    if !findings.iter().any(is_wrong) {
        text.push_str("nothing is wrong\n");
    }
    for hint in findings.iter().filter(|finding| is_hint(finding)) {
        let [what, means, to_do] = ["text", "means", "hint"].map(|name| field(hint, name));
        text.push_str(&format!("could be better: {what}: {means} ({to_do})\n"));
    }
    text
}

fn is_hint(finding: &Value) -> bool {
    finding["weight"] == "hint"
}

fn is_wrong(finding: &Value) -> bool {
    finding["weight"] == "wrong"
}

fn nodes(document: &Value) -> String {
    let mut table = Table::new(&[
        "NODE",
        "ANSWERS",
        "ROLE",
        "COVEY",
        ">LEDGER",
        ">BEHIND",
        ">CLOCK",
        ">DISK FREE",
        "CERTIFICATE",
    ]);
    for node in array(document, "nodes") {
        let answers = node["answers"] == true;
        let role = match (node["placer"] == true, node["voter"] == true) {
            (true, _) => "placer",
            (false, true) => "voter",
            (false, false) => "-",
        };
        let ahead = node["clock_ahead_ms"].as_i64();
        let row = [
            field(node, "name"),
            if answers { "yes" } else { "no" }.to_owned(),
            role.to_owned(),
            field(node, "version"),
            field(node, "applied"),
            field(node, "behind"),
            ahead.map_or_else(|| "-".to_owned(), |ms| format!("{ms:+} ms")),
            node["disk"]["free_bytes"].as_u64().map_or_else(|| "-".to_owned(), bytes),
            certificate(node),
        ];
        table.row(if answers { Look::Plain } else { Look::Bad }, row);
    }
    table.render("no nodes")
}

/// The day on which it ends.
fn certificate(node: &Value) -> String {
    let ends = field(node, "certificate_ends");
    ends.split('T').next().map_or_else(|| ends.clone(), |day| format!("until {day}")).replace("until -", "-")
}

/// Who reaches whom: milliseconds there and back; of many nodes only how many ways there are.
fn ways(document: &Value) -> String {
    let (nodes, pairs) = (array(document, "nodes"), array(document, "pairs"));
    if nodes.len() < 2 {
        return String::new();
    }
    let names: Vec<String> = nodes.iter().map(|node| field(node, "name")).collect();
    if names.len() > MATRIX {
        let cut = pairs.iter().filter(|pair| pair["rtt_us"].is_null()).count();
        return format!("{} ways between nodes were tried, {cut} of them are cut\n\n", pairs.len());
    }
    let heads: Vec<String> = names.iter().map(|name| format!(">{name}")).collect();
    let head: Vec<&str> = ["ms, FROM \\ TO"].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let mut table = Table::new(&head);
    for from in &names {
        let mut look = Look::Plain;
        let mut cells = vec![shown(from).into_owned()];
        for to in &names {
            let pair = pairs.iter().find(|pair| pair["from"] == **from && pair["to"] == **to);
            cells.push(match pair.map(|pair| pair["rtt_us"].as_u64()) {
                _ if from == to => "-".to_owned(),
                Some(Some(us)) => format!("{}.{}", us / 1000, us % 1000 / 100),
                Some(None) => {
                    look = Look::Bad;
                    "cut".to_owned()
                }
                None => "?".to_owned(),
            });
        }
        table.row(look, cells);
    }
    table.render("") + "\n"
}

fn array<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document[name].as_array().map_or(&[], Vec::as_slice)
}
