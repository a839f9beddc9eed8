//! What commands print: documents for programs, tables and sentences for people.

mod advice;
mod cell;
mod context;
mod copied;
mod doctor;
mod event;
mod grid;
mod image;
mod job;
mod node;
mod overcommit;
mod table;
mod task;
mod top;
mod units;
mod usage;
mod user;
mod volume;
mod why;

use std::{
    borrow::Cow,
    io::{self, Write},
    sync::OnceLock,
};

use serde_json::Value;

pub(crate) use self::{
    advice::{advice, applied, nothing_to_apply},
    cell::cell,
    context::contexts,
    copied::copied,
    doctor::doctor,
    event::event_line,
    image::{images, logged_in, pruned, removed},
    job::{job, jobs, version},
    node::nodes,
    overcommit::overcommit,
    task::{task, tasks},
    top::{AMPLE, Line, Sort, Space, top},
    units::ended,
    usage::usage,
    user::{granted, users},
    volume::{volumes, volumes_removed},
    why::why,
};
use crate::failure::Failure;

/// Whose jobs go by their bare names: root's on the local socket, else those of whoever has logged in.
static ONESELF: OnceLock<String> = OnceLock::new();

/// Says who reads, once and before anything is shown.
pub(crate) fn show_to(principal: &str) {
    let _ = ONESELF.set(principal.to_owned());
}

/// Standard output. Colours reach terminals only, and none if `NO_COLOR` is set.
pub(crate) struct Out {
    json: bool,
    to: anstream::AutoStream<io::Stdout>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Out { json, to: anstream::stdout() }
    }

    /// Whether a program reads.
    pub(crate) fn json(&self) -> bool {
        self.json
    }

    /// One document, on a line.
    pub(crate) fn document(&mut self, document: &Value) -> Result<(), Failure> {
        let mut bytes = serde_json::to_vec(document).map_err(io::Error::from)?;
        bytes.push(b'\n');
        self.bytes(&bytes)
    }

    /// The document to a program, what `show` makes of it to people.
    pub(crate) fn either(
        &mut self,
        document: &Value,
        show: impl FnOnce(&Value) -> String,
    ) -> Result<(), Failure> {
        if self.json { self.document(document) } else { self.text(&show(document)) }
    }

    /// Text for people; a line end is added if it has none.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.to.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            self.to.write_all(b"\n")?;
        }
        Ok(self.to.flush()?)
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }
}

/// Text of others on a terminal: control characters could do anything to it.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        let visible = |c: char| if c == '\n' || c == '\t' { ' ' } else { '\u{fffd}' };
        Cow::Owned(text.chars().map(|c| if c.is_control() { visible(c) } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// The document's list, or nothing.
fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

/// A list's lines below it: what is missing from it.
fn caveats(list: &Value) -> String {
    let mut text = String::new();
    if list["stale"] == true {
        text.push_str("note: no placer could be asked; this is what the nodes know by themselves\n");
    }
    let missing: Vec<_> =
        list["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).map(shown).collect();
    if !missing.is_empty() {
        text.push_str(&format!("note: no answer from {}\n", missing.join(", ")));
    }
    text
}

/// A field as text: `-` if it is null or absent.
fn field(document: &Value, name: &str) -> String {
    match &document[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => shown(text).into_owned(),
        other => other.to_string(),
    }
}

/// `JOB` or `JOB/INDEX` of a document that names one; with the owner if it is not oneself.
fn whose(document: &Value, name: &str) -> String {
    let job = field(document, name);
    let me = ONESELF.get().map_or("root", String::as_str);
    let owner = document["owner"].as_str().unwrap_or(me);
    let job = if owner == me { job } else { format!("{}/{job}", shown(owner)) };
    match document["index"].as_u64() {
        Some(index) => format!("{job}/{index}"),
        None => job,
    }
}

#[cfg(test)]
mod tests;
