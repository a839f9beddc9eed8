//! Refusals that say what to do.

use alloc::{
    format,
    string::{String, ToString},
};
use core::fmt;

use super::{Answer, Refusal};
use crate::{
    ids::{JobKey, Version},
    job::DocumentError,
};

/// Refusals are remembered with the requests and kept in snapshots, so what they quote is cut, in bytes.
const LONGEST: usize = 600;

impl Refusal {
    /// `code` as in INTERFACES.
    pub fn new(code: &str, message: impl fmt::Display, hint: Option<&str>) -> Self {
        Refusal {
            code: code.to_string(),
            message: cut(message.to_string()),
            hint: hint.map(|hint| cut(hint.to_string())),
        }
    }

    pub(super) fn conflict(message: impl fmt::Display, hint: &str) -> Self {
        Refusal::new("conflict", message, Some(hint))
    }

    pub(super) fn invalid(message: impl fmt::Display) -> Self {
        Refusal::new("invalid", message, None)
    }

    pub(super) fn no_job(key: &JobKey) -> Self {
        let hint = "`covey jobs` lists what there is";
        Refusal::new("not_found", format_args!("there is no job {key}"), Some(hint))
    }
}

impl From<DocumentError> for Refusal {
    fn from(error: DocumentError) -> Self {
        Refusal::new("invalid", &error.message, error.hint.as_deref())
    }
}

impl From<Result<Answer, Refusal>> for Answer {
    fn from(result: Result<Answer, Refusal>) -> Self {
        result.unwrap_or_else(Answer::Refused)
    }
}

/// A version for a message: its number, with the cell generation if that is not the other's.
pub(super) fn shown(version: Version, beside: Version) -> String {
    if version.cell == beside.cell {
        version.number.to_string()
    } else {
        format!("{} of cell generation {}", version.number, version.cell)
    }
}

fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
