//! A value of a document with the way to it, and the readings that name both when they fail.

use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::{fmt, ops::RangeInclusive};
use serde_json::{Map, Value};

/// One step from the document's root to a value in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// What is wrong in a document, where, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DocumentError {
    /// From the root to the value, or to the key that should not be there. If a key is missing, to its table.
    pub path: Vec<Step>,
    pub message: String,
    pub hint: Option<String>,
}

/// A value and the way to it.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    path: Vec<Step>,
}

/// A table and the way to it.
pub(super) struct Table<'a> {
    map: &'a Map<String, Value>,
    path: Vec<Step>,
}

/// The keys of a table.
pub(super) struct Keys {
    pub(super) known: &'static [&'static str],
    /// Keys that covey will know one day.
    pub(super) later: &'static [&'static str],
    /// Keys that belong elsewhere, and the hint to say so: TOML makes it easy to write one below the wrong `[table]`.
    pub(super) elsewhere: (&'static [&'static str], &'static str),
}

impl<'a> Field<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Field { value, path: Vec::new() }
    }

    /// An error about this value; the message goes on after its name.
    pub(super) fn error(&self, message: impl fmt::Display, hint: Option<String>) -> DocumentError {
        DocumentError { message: format!("{} {message}", Way(&self.path)), path: self.path.clone(), hint }
    }

    /// An error whose text says by itself what is wrong.
    pub(super) fn because(&self, problem: impl fmt::Display) -> DocumentError {
        let path = self.path.clone();
        DocumentError { message: format!("{}: {problem}", Way(&path)), path, hint: None }
    }

    fn mistyped(&self, wanted: &str) -> DocumentError {
        self.error(format_args!("must be {wanted}, not {}", kind(self.value)), None)
    }

    pub(super) fn text(&self, wanted: &str) -> Result<&'a str, DocumentError> {
        self.value.as_str().ok_or_else(|| self.mistyped(wanted))
    }

    pub(super) fn whole(&self, range: RangeInclusive<u64>) -> Result<u64, DocumentError> {
        let number = match self.value {
            Value::Number(number) if !number.is_f64() => number,
            _ => return Err(self.mistyped("a whole number")),
        };
        number.as_u64().filter(|n| range.contains(n)).ok_or_else(|| {
            self.error(format_args!("must be from {} to {}, not {number}", range.start(), range.end()), None)
        })
    }

    pub(super) fn whole_u32(&self, range: RangeInclusive<u32>) -> Result<u32, DocumentError> {
        let n = self.whole(u64::from(*range.start())..=u64::from(*range.end()))?;
        // In range, so it fits.
        Ok(u32::try_from(n).unwrap_or(u32::MAX))
    }

    /// A number or a text, as text: amounts may be written either way.
    pub(super) fn scalar(&self, wanted: &str) -> Result<String, DocumentError> {
        match self.value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            _ => Err(self.mistyped(wanted)),
        }
    }

    pub(super) fn list(&self, wanted: &str, most: usize) -> Result<Vec<Field<'a>>, DocumentError> {
        let items = self.value.as_array().ok_or_else(|| self.mistyped(wanted))?;
        if items.len() > most {
            return Err(self.error(format_args!("has {} items, more than {most}", items.len()), None));
        }
        let item = |(i, value)| Field { value, path: extended(&self.path, Step::Index(i)) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// A list of texts.
    pub(super) fn texts(
        &self,
        wanted: &str,
        most: usize,
    ) -> Result<Vec<(&'a str, Field<'a>)>, DocumentError> {
        self.list(wanted, most)?.into_iter().map(|item| Ok((item.text("a string")?, item))).collect()
    }

    /// A table whose keys are the user's.
    pub(super) fn entries(
        &self,
        wanted: &str,
        most: usize,
    ) -> Result<Vec<(&'a str, Field<'a>)>, DocumentError> {
        let map = self.value.as_object().ok_or_else(|| self.mistyped(wanted))?;
        if map.len() > most {
            return Err(self.error(format_args!("has {} entries, more than {most}", map.len()), None));
        }
        let entry = |(key, value): (&'a String, &'a Value)| (key.as_str(), self.child(key, value));
        Ok(map.iter().map(entry).collect())
    }

    /// A table that has none but these keys.
    pub(super) fn table(&self, keys: &Keys) -> Result<Table<'a>, DocumentError> {
        let map = self.value.as_object().ok_or_else(|| self.mistyped("a table"))?;
        match map.iter().find(|(key, _)| !keys.known.contains(&key.as_str())) {
            Some((key, value)) => Err(keys.refuse(key, &self.child(key, value))),
            None => Ok(Table { map, path: self.path.clone() }),
        }
    }

    fn child(&self, key: &str, value: &'a Value) -> Field<'a> {
        Field { value, path: extended(&self.path, Step::Key(key.to_string())) }
    }
}

impl<'a> Table<'a> {
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        let value = self.map.get(key)?;
        Some(Field { value, path: extended(&self.path, Step::Key(key.to_string())) })
    }

    pub(super) fn need(&self, key: &str, hint: &str) -> Result<Field<'a>, DocumentError> {
        self.get(key).ok_or_else(|| DocumentError {
            message: format!("{} is missing", Way(&extended(&self.path, Step::Key(key.to_string())))),
            path: self.path.clone(),
            hint: Some(hint.to_string()),
        })
    }
}

impl Keys {
    fn refuse(&self, key: &str, at: &Field<'_>) -> DocumentError {
        let whole_path = DocumentError { path: at.path.clone(), message: String::new(), hint: None };
        let (others, where_to) = self.elsewhere;
        if self.later.contains(&key) {
            let message = format!("{} is not supported yet", Way(&at.path));
            return DocumentError { message, hint: Some("leave it out".to_string()), ..whole_path };
        }
        let hint = match (others.contains(&key), nearest(key, self.known)) {
            (true, _) => where_to.to_string(),
            (false, Some(near)) => format!("did you mean `{near}`?"),
            (false, None) => format!("known here: {}", self.known.join(", ")),
        };
        DocumentError { message: format!("unknown key {}", Way(&at.path)), hint: Some(hint), ..whole_path }
    }
}

/// A path as people read it: `override[0].index[2]`, in backticks.
struct Way<'a>(&'a [Step]);

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the document");
        }
        f.write_str("`")?;
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        f.write_str("`")
    }
}

fn extended(path: &[Step], step: Step) -> Vec<Step> {
    let mut path = path.to_vec();
    path.push(step);
    path
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// The one of `known` that was most likely meant: at most two slips away, and less than half of it.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|name| (slips(word, name), *name)).min()?;
    (near.0 <= 2 && near.0 * 2 < near.1.len().max(3)).then_some(near.1)
}

/// Letters to insert, drop, change or swap with their neighbour (optimal string alignment, Damerau 1964).
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[a.len()][b.len()]
}
