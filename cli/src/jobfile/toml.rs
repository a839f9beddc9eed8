//! TOML → document, with the place of each part.

use std::ops::Range;

use serde_json::{Map, Number, Value};
use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Flaw,
    tree::{Entry, Inside, Tree},
};

pub(super) fn read(text: &str) -> Result<(Value, Tree), Flaw> {
    let table = DeTable::parse(text).map_err(|why| syntax(text, &why))?;
    let (map, inside) = convert_table(table.get_ref())?;
    Ok((Value::Object(map), Tree { span: 0..text.len(), inside }))
}

/// One value, as on a command line.
pub(super) fn value(text: &str) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    convert(value.get_ref(), &value.span()).ok().map(|(value, _)| value)
}

/// The steps of a dotted key: `a."b.c".d`.
pub(super) fn key(text: &str) -> Option<Vec<String>> {
    let line = format!("{text} = 0");
    // A line end would make two keys of it.
    let table = if text.contains(['\n', '=', '#']) { None } else { DeTable::parse(&line).ok() }?;
    let mut steps = Vec::new();
    let mut here = Some(table.get_ref());
    while let Some((step, value)) = here.take().and_then(|table| table.iter().next()) {
        steps.push(step.get_ref().to_string());
        here = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    Some(steps)
}

/// The parser's words for what it met, plainer where they are of its grammar, with a hint for what people often get
/// wrong.
fn syntax(text: &str, why: &toml::de::Error) -> Flaw {
    let span = why.span().unwrap_or(text.len()..text.len());
    let found = text.get(span.clone()).unwrap_or_default();
    let line = text.get(..span.start).and_then(|head| head.rsplit('\n').next()).unwrap_or_default();
    let message = why.message().trim().replace('\n', ", ");
    let flaw = |message: &str, hint: &str| Flaw::new(span.clone(), message).hint(hint);
    if message.starts_with("duplicate key") {
        flaw(&format!("`{found}` is there twice"), "give each key and each [table] once")
    } else if message.starts_with("string values must be quoted") {
        flaw("text must be quoted", "key = \"value\"")
    } else if line.trim_start().split(['=', '#']).next().is_some_and(|key| key.contains(':')) {
        flaw(&message, "TOML has key = value, not key: value")
    } else if message.starts_with("invalid basic string, expected `\"`") {
        flaw("the closing quote is missing", "text of several lines stands between \"\"\" and \"\"\"")
    } else if message.starts_with("invalid basic string, expected non-double-quote") {
        flaw("quoted text may not hold this character", "write it as \\u and four hex digits")
    } else {
        Flaw::new(span.clone(), message)
    }
}

fn convert(value: &DeValue<'_>, span: &Range<usize>) -> Result<(Value, Tree), Flaw> {
    let leaf = |value| Ok((value, Tree::leaf(span.clone())));
    match value {
        DeValue::String(text) => leaf(Value::String(text.to_string())),
        DeValue::Boolean(is) => leaf(Value::Bool(*is)),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => leaf(number.into()),
            Err(_) => match u64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => leaf(number.into()),
                Err(_) => Err(Flaw::new(span.clone(), format!("the number {number} is too large"))),
            },
        },
        DeValue::Float(number) => match number.as_str().parse().ok().and_then(Number::from_f64) {
            Some(number) => leaf(Value::Number(number)),
            None => Err(Flaw::new(span.clone(), format!("{number} is no number that a job can use"))),
        },
        DeValue::Datetime(_) => Err(Flaw::new(span.clone(), "nothing in a job is a date or a time")
            .hint("if it is meant as text, quote it")),
        DeValue::Array(items) => {
            let converted: Result<Vec<_>, _> =
                items.iter().map(|item| convert(item.get_ref(), &item.span())).collect();
            let (values, trees) = converted?.into_iter().unzip();
            Ok((Value::Array(values), Tree { span: span.clone(), inside: Inside::Array(trees) }))
        }
        DeValue::Table(table) => {
            let (map, inside) = convert_table(table)?;
            Ok((Value::Object(map), Tree { span: span.clone(), inside }))
        }
    }
}

fn convert_table(table: &DeTable<'_>) -> Result<(Map<String, Value>, Inside), Flaw> {
    let mut map = Map::new();
    let mut entries = Vec::new();
    for (key, value) in table {
        let (converted, tree) = convert(value.get_ref(), &value.span())?;
        map.insert(key.get_ref().to_string(), converted);
        entries.push(Entry { key: key.get_ref().to_string(), at: Spanned::span(key), value: tree });
    }
    Ok((map, Inside::Table(entries)))
}
