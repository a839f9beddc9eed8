//! JSON → document, with the place of each part.

use std::{collections::BTreeSet, ops::Range};

use serde_json::Value;

use super::{
    Flaw,
    tree::{Entry, Inside, Tree},
};

pub(super) fn read(text: &str) -> Result<(Value, Tree), Flaw> {
    let value: Value = serde_json::from_str(text).map_err(|why| syntax(text, &why))?;
    let tree = Scanner { text, at: 0 }.value()?;
    Ok((value, tree))
}

fn syntax(text: &str, why: &serde_json::Error) -> Flaw {
    let line: usize = text.split_inclusive('\n').take(why.line().saturating_sub(1)).map(str::len).sum();
    // Columns are bytes here, and count what was read: the last one is what does not fit.
    let start = (line + why.column().saturating_sub(1)).min(text.len());
    let message = why.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(head, _)| head);
    if why.is_eof() {
        let end = text.trim_end().len();
        return Flaw::new(end..end, "the file ends in the middle of the document");
    }
    let flaw = Flaw::new(start..start + 1, message);
    match message {
        m if m.contains("trailing comma") => flaw.hint("JSON allows no comma after the last element"),
        "trailing characters" => Flaw::new(start..start + 1, "more text after the document's end"),
        m if m.contains("key must be a string") => flaw.hint("JSON's keys are quoted: {\"name\": …}"),
        _ => flaw,
    }
}

/// Goes over a text that `serde_json` has accepted, so it need not look for errors; it must only never panic.
struct Scanner<'t> {
    text: &'t str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    fn value(&mut self) -> Result<Tree, Flaw> {
        match self.peek() {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => Ok(Tree::leaf(self.string())),
            _ => {
                let start = self.at;
                let rest = &self.text[start..];
                let end = rest.find(|c: char| ",]}".contains(c) || c.is_ascii_whitespace());
                self.at = start + end.unwrap_or(rest.len());
                Ok(Tree::leaf(start..self.at))
            }
        }
    }

    /// Over a string, quotes included.
    fn string(&mut self) -> Range<usize> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += 1;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at = (self.at + 1).min(bytes.len());
        start..self.at
    }

    fn array(&mut self) -> Result<Tree, Flaw> {
        let start = self.at;
        let mut items = Vec::new();
        self.at += 1;
        while !matches!(self.peek(), b']' | 0) {
            items.push(self.value()?);
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Tree { span: start..self.at, inside: Inside::Array(items) })
    }

    fn object(&mut self) -> Result<Tree, Flaw> {
        let start = self.at;
        let mut entries: Vec<Entry> = Vec::new();
        let mut keys = BTreeSet::new();
        self.at += 1;
        while self.peek() == b'"' {
            let at = self.string();
            let key: String = serde_json::from_str(&self.text[at.clone()]).unwrap_or_default();
            if !keys.insert(key.clone()) {
                // `serde_json` would let the last one win.
                return Err(
                    Flaw::new(at, format!("the key `{key}` is there twice")).hint("give each key once")
                );
            }
            if self.peek() == b':' {
                self.at += 1;
            }
            let value = self.value()?;
            entries.push(Entry { key, at, value });
            if self.peek() == b',' {
                self.at += 1;
            }
        }
        self.at += 1;
        Ok(Tree { span: start..self.at, inside: Inside::Table(entries) })
    }
}
