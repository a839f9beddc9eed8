//! `${VAR}` in a task's command and environment.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString},
    vec::Vec,
};

use super::name;

/// Why a text with variables cannot be used. Each says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadExpansion {
    #[error("a lone `$` in `{text}`: write $$ for a dollar, ${{NAME}} for a variable")]
    LoneDollar { text: String },
    #[error("`${{` without `}}` in `{text}`")]
    Unclosed { text: String },
    #[error("`${{{name}}}`: `{name}` is not the name of a variable (letters, digits and _)")]
    Name { name: String },
    #[error("`${{{name}}}`: there is no variable `{name}` in the task's environment")]
    Unknown { name: String },
}

enum Piece<'a> {
    Text(&'a str),
    Variable(&'a str),
}

/// `text` with its variables filled in; `$$` is a dollar. What is filled in is not looked through again.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> Result<String, BadExpansion> {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text)? {
        out.push_str(match piece {
            Piece::Text(text) => text,
            Piece::Variable(name) => {
                variables.get(name).ok_or_else(|| BadExpansion::Unknown { name: name.to_string() })?
            }
        });
    }
    Ok(out)
}

/// The names of the variables that `text` needs, in order.
pub fn variables(text: &str) -> Result<Vec<&str>, BadExpansion> {
    let names = pieces(text)?.into_iter().filter_map(|piece| match piece {
        Piece::Variable(name) => Some(name),
        Piece::Text(_) => None,
    });
    Ok(names.collect())
}

fn pieces(text: &str) -> Result<Vec<Piece<'_>>, BadExpansion> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push(Piece::Text(before));
        if let Some(tail) = after.strip_prefix('$') {
            out.push(Piece::Text("$"));
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('{') {
            let (name, tail) =
                tail.split_once('}').ok_or_else(|| BadExpansion::Unclosed { text: text.to_string() })?;
            if !name::is_variable(name) {
                return Err(BadExpansion::Name { name: name.to_string() });
            }
            out.push(Piece::Variable(name));
            rest = tail;
        } else {
            return Err(BadExpansion::LoneDollar { text: text.to_string() });
        }
    }
    out.push(Piece::Text(rest));
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use alloc::{format, vec};
    use proptest::prelude::*;

    fn some() -> BTreeMap<String, String> {
        [("A", "1"), ("PORT_http", "20001"), ("COST", "$$5 ${A}")]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into()
    }

    #[test]
    fn variables_are_filled_in_once() {
        assert_eq!(expand(":${PORT_http}${A}", &some()).unwrap(), ":200011");
        assert_eq!(expand("$$${A}$$", &some()).unwrap(), "$1$");
        assert_eq!(expand("${COST}", &some()).unwrap(), "$$5 ${A}");
        assert_eq!(variables("${B}$${C}${A}").unwrap(), vec!["B", "A"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| expand(text, &some()).unwrap_err().to_string();
        assert_eq!(error("a$b"), "a lone `$` in `a$b`: write $$ for a dollar, ${NAME} for a variable");
        assert_eq!(error("${A"), "`${` without `}` in `${A`");
        assert_eq!(error("${A-x}"), "`${A-x}`: `A-x` is not the name of a variable (letters, digits and _)");
        assert_eq!(error("${B}"), "`${B}`: there is no variable `B` in the task's environment");
    }

    proptest! {
        #[test]
        fn a_quoted_text_is_itself(text in any::<String>()) {
            prop_assert_eq!(expand(&text.replace('$', "$$"), &some()).unwrap(), text.clone());
            let _ = expand(&text, &some());
            let _ = expand(&format!("${text}"), &some());
        }
    }
}
