//! Values of the command line that are laid over a job file's document.

use std::str::FromStr;

use placement::job::Step;
use serde_json::{Map, Value};

use super::{JobFileError, toml};

/// One `--set KEY=VALUE`, or an option that means the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Set {
    /// As it was given, for errors.
    argument: String,
    steps: Vec<String>,
    value: Value,
}

impl FromStr for Set {
    type Err = String;

    /// `KEY` is dotted as in TOML. `VALUE` is a TOML value; what is none is text, and an environment variable always.
    fn from_str(text: &str) -> Result<Self, String> {
        let form = "it has the form KEY=VALUE, for instance task.memory=64MiB";
        let (key, value) = text.split_once('=').ok_or(form)?;
        let steps = toml::key(key).ok_or_else(|| format!("`{key}` is not a dotted key; {form}"))?;
        let parsed = toml::value(value);
        let in_env = steps.len() > 1 && steps[steps.len() - 2] == "env";
        let value = match parsed {
            Some(value) if !in_env || value.is_string() => value,
            _ => Value::String(value.to_owned()),
        };
        Ok(Set { argument: format!("--set {text}"), steps, value })
    }
}

impl Set {
    /// `--count N`.
    pub fn count(count: u32) -> Self {
        Set { argument: format!("--count {count}"), steps: vec!["count".to_owned()], value: count.into() }
    }

    /// Puts the value into `document`. Tables on the way are made; an element of a list is named by its index.
    pub(super) fn apply(&self, document: &mut Value) -> Result<(), JobFileError> {
        let mut here = document;
        for (depth, step) in self.steps.iter().enumerate() {
            here = match here {
                Value::Object(table) => table.entry(step).or_insert_with(|| Value::Object(Map::new())),
                Value::Array(items) => {
                    let len = items.len();
                    step.parse().ok().and_then(|index: usize| items.get_mut(index)).ok_or_else(|| {
                        let list = self.steps[..depth].join(".");
                        self.refused(format!("`{list}` is a list of {len}, and `{step}` none of it"), None)
                    })?
                }
                _ => {
                    let outer = self.steps[..depth].join(".");
                    return Err(self.refused(format!("`{outer}` is not a table, it has no `{step}`"), None));
                }
            };
        }
        *here = self.value.clone();
        Ok(())
    }

    /// Whether an error at `path` of the document is about this value.
    pub(super) fn covers(&self, path: &[Step]) -> bool {
        path.len() >= self.steps.len()
            && self.steps.iter().zip(path).all(|(mine, step)| match step {
                Step::Key(key) => mine == key,
                Step::Index(index) => *mine == index.to_string(),
            })
    }

    pub(super) fn refused(&self, message: String, hint: Option<String>) -> JobFileError {
        JobFileError::Argument { argument: self.argument.clone(), message, hint }
    }
}
