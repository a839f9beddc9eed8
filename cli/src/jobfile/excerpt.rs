//! The line of a text that an error is about.

use std::{fmt, ops::Range};

/// Wider lines are cut, so that a file without line ends does not flood the terminal; in characters.
const WIDTH: usize = 100;

/// A line of a file, and the part of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    text: String,
    before: usize,
    marked: usize,
}

impl Excerpt {
    /// The line in which `span` (in bytes) begins. A span that goes on behind the line is marked to the line's end.
    pub(super) fn of(text: &str, span: Range<usize>) -> Self {
        let start = floor(text, span.start);
        let head = &text[..start];
        let begin = head.rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[begin..];
        let whole = rest.split('\n').next().unwrap_or(rest).trim_end_matches('\r');
        let column = text[begin..start].chars().count();
        let end = floor(text, span.end.max(start)).min(begin + whole.len());
        let marked = if end > start { text[start..end].chars().count() } else { 1 };
        // The part of the line that is shown begins well before what is marked.
        let skip = if column + 20 < WIDTH { 0 } else { column - WIDTH / 2 };
        let shown: String = whole.chars().skip(skip).take(WIDTH).map(printable).collect();
        let before = column - skip;
        let marked = marked.min(shown.chars().count().saturating_sub(before)).max(1);
        Excerpt { line: head.matches('\n').count() + 1, column: column + 1, text: shown, before, marked }
    }
}

/// The last character boundary up to `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A tab would shift the mark, a control character could do anything to a terminal.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        writeln!(f, "{}", format!(" {number} | {}", self.text).trim_end())?;
        write!(f, " {margin} | {}{}", " ".repeat(self.before), "^".repeat(self.marked))
    }
}
