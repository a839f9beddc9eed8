//! Which texts may be names.

/// A DNS label as covey wants it: a lower-case letter, then lower-case letters, digits and `-`, the last no `-`, at most 63.
pub fn is_label(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// The name of a node or a cell, as a host's: a letter, then letters, digits and `-`, the last no `-`, at most 63. Two that
/// differ only in case are one.
pub fn is_node(text: &str) -> bool {
    is_label(&text.to_ascii_lowercase())
}

/// The name of an environment variable: letters, digits and `_`, no digit first.
pub fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && is_word(text)
}

/// The name of a port, which becomes the variable `PORT_name`: letters, digits and `_`, a letter first, at most 63.
pub fn is_port(text: &str) -> bool {
    text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && is_word(text)
}

/// The name of a node's label or a value of it: letters, digits and `.`, `_`, `-`, `/`, `:`, `+`, at most 253.
pub fn is_node_label(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:+".contains(&b))
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
