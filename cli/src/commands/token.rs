//! Tokens: the secret is drawn here, and its hash is all that leaves.

use std::io::{IsTerminal, stderr};

use gossip::{token::Token, wire::Call};
use placement::{ids::CellId, ledger::Role};
use serde_json::{Value, json};

use crate::{
    args::cell,
    failure::Failure,
    output::{Out, shown},
    session::{self, Session},
};

pub(super) async fn token(args: cell::Token, session: &Session, out: &mut Out) -> Result<(), Failure> {
    let secret = session::random()?;
    // Which cell's it is, is known only once it is made.
    let hash = Token::hash(Token::new(CellId(String::new()), secret).secret());
    let (role, uses, ttl_ms) = (args.role, args.uses(), args.ttl.millis());
    let made = session.ask(Call::Token { hash, role, name: args.name, uses, ttl_ms }).await?;
    let cell = made["cell"].as_str().unwrap_or_default();
    let token = Token::new(CellId(cell.to_owned()), secret).to_string();
    if !out.json() && stderr().is_terminal() {
        say!("{}", how(role, &made, &token));
    }
    let document = json!({
        "token": token, "role": role, "name": made["name"], "expires": made["expires"], "uses": made["uses"],
        "cell": made["cell_name"],
    });
    out.either(&document, |_| token.clone())
}

/// How to use it.
fn how(role: Role, made: &Value, token: &str) -> String {
    let (uses, expires) = (&made["uses"], shown(made["expires"].as_str().unwrap_or("?")).into_owned());
    let whom = match (role, made["uses"].as_u64()) {
        (Role::Node, Some(1)) => "one node joins".to_owned(),
        (Role::Node, _) => format!("up to {uses} nodes join"),
        (_, _) => format!("{} logs in as {role}", shown(made["name"].as_str().unwrap_or("?"))),
    };
    let command = match role {
        Role::Node => format!("covey agent --data /var/lib/covey --join HOST:7411 --token {token}"),
        Role::User | Role::Admin => format!("covey login --node HOST:7411 --token {token}"),
    };
    format!("covey: until {expires} {whom} with (HOST: any node of the cell)\n  {command}")
}
