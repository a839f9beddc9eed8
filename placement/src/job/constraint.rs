//! `require` and `prefer`: `arch=x86_64`, `disk != hdd`, `zone in (a,b)`, `kernel>=5.19`.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, str::FromStr};

use super::{Constraint, Op, name};

/// A text that is no constraint: what is wrong with it, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}`: {problem}")]
pub struct BadConstraint {
    pub text: String,
    pub problem: String,
}

/// What stands between label and value. A longer one comes before its own beginning.
const COMPARISONS: [(&str, Op); 6] =
    [("!=", Op::Ne), ("<=", Op::Le), (">=", Op::Ge), ("=", Op::Eq), ("<", Op::Lt), (">", Op::Gt)];

impl FromStr for Constraint {
    type Err = BadConstraint;

    fn from_str(text: &str) -> Result<Self, BadConstraint> {
        let bad = |problem: &str| BadConstraint { text: text.to_string(), problem: problem.to_string() };
        let (label, op, rest) = split(text)
            .ok_or_else(|| bad("no comparison: write label=value, !=, <, <=, >, >= or label in (a,b)"))?;
        if !name::is_node_label(label) {
            return Err(bad(&format!("`{label}` is not the name of a label")));
        }
        let values: Vec<String> = match op {
            Op::In => rest
                .strip_prefix('(')
                .and_then(|rest| rest.strip_suffix(')'))
                .ok_or_else(|| bad("write the values of `in` in brackets: (a,b)"))?
                .split(',')
                .map(|value| value.trim().to_string())
                .collect(),
            _ => Vec::from([rest.to_string()]),
        };
        if let Some(value) = values.iter().find(|value| !name::is_node_label(value)) {
            let problem = match value.strip_prefix('=') {
                Some(_) if op == Op::Eq => "write one `=`".to_string(),
                _ if value.is_empty() => "a value is missing".to_string(),
                _ => format!("`{value}` is not the value of a label"),
            };
            return Err(bad(&problem));
        }
        let ordered = matches!(op, Op::Lt | Op::Le | Op::Gt | Op::Ge);
        if ordered && !values.iter().all(|value| value.starts_with(|c: char| c.is_ascii_digit())) {
            return Err(bad("<, <=, > and >= compare numbers and versions, which begin with a digit"));
        }
        Ok(Constraint { label: label.to_string(), op, values })
    }
}

/// Label, comparison and the rest, without the spaces round them.
fn split(text: &str) -> Option<(&str, Op, &str)> {
    let symbol = text.find(['=', '!', '<', '>']).and_then(|at| {
        let (symbol, op) = COMPARISONS.iter().find(|(symbol, _)| text[at..].starts_with(symbol))?;
        Some((text[..at].trim(), *op, text[at + symbol.len()..].trim()))
    });
    symbol.or_else(|| {
        let (label, rest) = text.trim().split_once(char::is_whitespace)?;
        let rest = rest.trim_start().strip_prefix("in")?;
        // `zone in(a)` is fine, `zone inside` is not.
        rest.starts_with(['(', ' ', '\t']).then(|| (label, Op::In, rest.trim()))
    })
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match COMPARISONS.iter().find(|(_, op)| *op == self.op) {
            Some((symbol, _)) => write!(f, "{}{symbol}{}", self.label, self.values.join(",")),
            None => write!(f, "{} in ({})", self.label, self.values.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forms() {
        for (text, written) in [
            ("arch=x86_64", "arch=x86_64"),
            (" disk != hdd ", "disk!=hdd"),
            ("zone in (a, b)", "zone in (a,b)"),
            ("zone in(a)", "zone in (a)"),
            ("kernel>=5.19", "kernel>=5.19"),
            ("cores < 8", "cores<8"),
        ] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), written);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read_back(
            text in any::<String>(),
            near in "[a-z]{0,2} ?(=|!=|in|<|>=)? ?[(]?[a-z0-9,]{0,4}[)]?",
        ) {
            for text in [text, near] {
                if let Ok(constraint) = text.parse::<Constraint>() {
                    prop_assert_eq!(constraint.to_string().parse::<Constraint>().unwrap(), constraint);
                }
            }
        }
    }
}
