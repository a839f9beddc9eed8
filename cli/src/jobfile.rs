//! A job file: TOML, or the same document as JSON, read into the document that is submitted. What is wrong with it is
//! said with file, line and column, the line itself and what to do, whether the syntax is broken or the job makes no
//! sense.

mod excerpt;
mod json;
mod set;
mod toml;
mod tree;

use std::{
    fs::File,
    io::{self, Read},
    ops::Range,
    path::Path,
};

use placement::job::Job;
use serde_json::Value;

use self::excerpt::Excerpt;
pub use self::set::Set;

/// No job file is longer, in bytes: a wrong file name must not fill the memory.
pub const MAX: u64 = 1 << 20;

/// A job file that can be submitted.
#[derive(Debug)]
pub struct JobFile {
    /// The document, with the values of the command line laid over it.
    pub document: Value,
    /// What it means.
    pub job: Job,
}

/// Why a job file is no job.
#[derive(Debug, thiserror::Error)]
pub enum JobFileError {
    #[error("cannot read {file}: {source}")]
    Read { file: String, source: io::Error },
    #[error("{file} is longer than {MAX} bytes: that is no job file")]
    TooLong { file: String },
    #[error("{file} is not text: byte {at} is not UTF-8")]
    NotText { file: String, at: usize },
    /// At a place in the file.
    #[error("{file}:{}:{}: {message}", excerpt.line, excerpt.column)]
    At { file: String, excerpt: Box<Excerpt>, message: String, hint: Option<String> },
    /// In an argument that changes the file's document.
    #[error("{argument}: {message}")]
    Argument { argument: String, message: String, hint: Option<String> },
}

impl JobFileError {
    /// What a user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            JobFileError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("give the path of a TOML or JSON file, or - for standard input".into())
            }
            JobFileError::Read { .. } | JobFileError::TooLong { .. } => None,
            JobFileError::NotText { .. } => Some("job files are TOML or JSON, in UTF-8".into()),
            JobFileError::At { hint, .. } | JobFileError::Argument { hint, .. } => hint.clone(),
        }
    }

    /// The line in question with a mark below it.
    pub fn excerpt(&self) -> Option<&Excerpt> {
        match self {
            JobFileError::At { excerpt, .. } => Some(excerpt),
            _ => None,
        }
    }
}

/// Reads the job file at `path` (`-`: standard input) and lays `sets` over it.
pub fn read(path: &Path, sets: &[Set]) -> Result<JobFile, JobFileError> {
    let file = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let bytes =
        if path == Path::new("-") { take(io::stdin().lock()) } else { File::open(path).and_then(take) };
    let bytes = bytes.map_err(|source| JobFileError::Read { file: file.clone(), source })?;
    if bytes.len() as u64 > MAX {
        return Err(JobFileError::TooLong { file });
    }
    let text = String::from_utf8(bytes)
        .map_err(|why| JobFileError::NotText { file: file.clone(), at: why.utf8_error().valid_up_to() })?;
    parse(&file, &text, sets)
}

fn take(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a job file's text; `file` is what errors call it. Text that begins with `{` is JSON.
pub fn parse(file: &str, text: &str, sets: &[Set]) -> Result<JobFile, JobFileError> {
    // Editors on some systems put a byte order mark before the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let at = |flaw: Flaw| JobFileError::At {
        file: file.to_owned(),
        excerpt: Box::new(Excerpt::of(text, flaw.span)),
        message: flaw.message,
        hint: flaw.hint,
    };
    let read = if text.trim_start().starts_with('{') { json::read(text) } else { toml::read(text) };
    let (mut document, tree) = read.map_err(at)?;
    for set in sets {
        set.apply(&mut document)?;
    }
    match Job::from_document(&document) {
        Ok(job) => Ok(JobFile { document, job }),
        Err(why) => match sets.iter().rev().find(|set| set.covers(&why.path)) {
            Some(set) => Err(set.refused(why.message, why.hint)),
            None => Err(at(Flaw {
                span: tree.locate(&why.path, is_about_key(&why.message)),
                message: why.message,
                hint: why.hint,
            })),
        },
    }
}

/// Whether it is the key that is wrong, not its value.
fn is_about_key(message: &str) -> bool {
    message.starts_with("unknown key")
        || message.ends_with("not supported yet")
        || message.ends_with("not the name of a variable")
}

/// What is wrong at a place of a text, in bytes.
#[derive(Debug, PartialEq, Eq)]
struct Flaw {
    span: Range<usize>,
    message: String,
    hint: Option<String>,
}

impl Flaw {
    fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Flaw { span, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: &str) -> Self {
        self.hint = Some(hint.to_owned());
        self
    }
}

#[cfg(test)]
mod tests;
