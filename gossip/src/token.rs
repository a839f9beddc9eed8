//! What a machine needs to join: `covey1.CELL.SECRET`. CELL is the authority's fingerprint, so that nobody else can pose as
//! the cell; of SECRET the ledger keeps only the hash.

use std::{fmt, str::FromStr};

use placement::ids::CellId;
use ring::digest::{SHA256, digest};

/// A join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub cell: CellId,
    secret: String,
}

/// A text that is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    #[error(
        "this is not a join token: one begins with `covey1.` (`covey token` on a member prints a new one)"
    )]
    NotOne,
    #[error("this token is for a newer covey (it begins with `{0}`): upgrade this machine's first")]
    Newer(String),
    #[error(
        "the token is damaged: its {0} must be {1} hex digits. Copy it again, or get a new one with `covey token`"
    )]
    Damaged(&'static str, usize),
}

impl Token {
    /// `secret` is random.
    pub fn new(cell: CellId, secret: [u8; 16]) -> Token {
        Token { cell, secret: secret.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// For the other side of a connection that is known to be the cell's.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// What is stored of it: SHA-256 in hex. Enough for 128 random bits; a password would need more.
    pub fn hash(secret: &str) -> String {
        digest(&SHA256, secret.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Token, BadToken> {
        let mut parts = text.trim().split('.');
        match parts.next() {
            Some("covey1") => {}
            Some(other)
                if other.strip_prefix("covey").is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n > 1)) =>
            {
                return Err(BadToken::Newer(other.to_string()));
            }
            _ => return Err(BadToken::NotOne),
        }
        let mut hex = |what, digits| {
            let part = parts.next().unwrap_or_default();
            let good = part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if good { Ok(part.to_string()) } else { Err(BadToken::Damaged(what, digits)) }
        };
        let token = Token { cell: CellId(hex("fingerprint", 64)?), secret: hex("secret", 32)? };
        if parts.next().is_some() { Err(BadToken::Damaged("secret", 32)) } else { Ok(token) }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "covey1.{}.{}", self.cell.0, self.secret)
    }
}

/// Without the secret: tokens get into logs.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "covey1.{}.…", self.cell.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn printed_and_read_back() {
        let token = Token::new(CellId("ab".repeat(32)), [7; 16]);
        let text = token.to_string();
        assert_eq!(text, format!("covey1.{}.{}", "ab".repeat(32), "07".repeat(16)));
        assert_eq!(text.parse::<Token>().unwrap(), token);
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
        assert!(!format!("{token:?}").contains(token.secret()));
        assert_eq!(Token::hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let good = Token::new(CellId("ab".repeat(32)), [7; 16]).to_string();
        let read = |text: &str| text.parse::<Token>().unwrap_err();
        assert_eq!(read("hello"), BadToken::NotOne);
        assert_eq!(read(""), BadToken::NotOne);
        assert_eq!(read(&good.replace("covey1", "covey2")), BadToken::Newer("covey2".into()));
        assert_eq!(read(&good[..40]), BadToken::Damaged("fingerprint", 64));
        assert_eq!(read(&good[..good.len() - 1]), BadToken::Damaged("secret", 32));
        assert_eq!(read(&format!("{good}.x")), BadToken::Damaged("secret", 32));
    }
}
