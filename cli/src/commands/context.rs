//! Who one is, and to which cell one talks: login, context ls, context use.

use std::{net::SocketAddr, time::Duration};

use gossip::{
    join::{KnockError, knock},
    tls::Key,
    token::Token,
    wire::join::{Joined, NewPrincipal, Whom},
};
use serde_json::json;
use tokio::{
    net::lookup_host,
    time::{Instant, sleep},
};

use crate::{
    args::cell,
    context::{Context, ContextError, LOCAL, Shelf},
    failure::Failure,
    output::{self, Out, shown},
    session::{Remote, Tried, Way},
    token::{self, VARIABLE},
};

/// A cell may be about to agree on a placer.
const PATIENCE: Duration = Duration::from_secs(15);
const BETWEEN: Duration = Duration::from_secs(1);

/// The way that requests go: to `node`, else to the chosen context's cell, else to this machine's agent.
pub(super) fn way(node: Option<&str>, socket: impl FnOnce() -> Way) -> Result<Way, Failure> {
    let shelf = match Shelf::open() {
        Ok(shelf) => shelf,
        Err(ContextError::NoHome) if node.is_none() => return Ok(socket()),
        Err(why) => return Err(why.into()),
    };
    let Some(name) = named(&shelf, node)? else {
        return match node {
            None => Ok(socket()),
            Some(node) => Err(Failure::NoCredentials(node.to_owned())),
        };
    };
    let context = shelf.load(&name)?;
    let me = context.credentials(&name)?;
    output::show_to(&me.principal.0);
    let nodes = node.map_or(context.nodes, |node| vec![node.to_owned()]);
    Ok(Way::Cell(Box::new(Remote::new(me, nodes))))
}

/// The context whose credentials are used: the chosen one; to ask one node, also the only one that there is.
fn named(shelf: &Shelf, node: Option<&str>) -> Result<Option<String>, ContextError> {
    if let Some(name) = shelf.current()? {
        return Ok(Some(name));
    }
    let mut names = if node.is_some() { shelf.names()? } else { Vec::new() };
    Ok(if names.len() == 1 { names.pop() } else { None })
}

pub(super) async fn login(args: cell::Login, node: Option<String>, out: &mut Out) -> Result<(), Failure> {
    let Some(node) = node else {
        return Err(Failure::Arguments("say which node lets you in: --node HOST:PORT".into()));
    };
    let given = args.token.map(|given| (given, "--token")).or_else(|| Some((token::from_env()?, VARIABLE)));
    let Some((given, from)) = given else {
        return Err(Failure::Arguments(format!(
            "to log in takes a token: --token T, --token @FILE or {VARIABLE}"
        )));
    };
    let shelf = Shelf::open()?;
    let token = token::read(&given, from)?;
    let key = Key::generate().map_err(|source| Failure::Key { source })?;
    let new = enter(&node, &token, &key).await?;
    let mut nodes = vec![node.clone()];
    nodes.extend(new.nodes.iter().map(SocketAddr::to_string).filter(|other| *other != node));
    // A cell's name may be one of another form.
    let name = args.context.unwrap_or_else(|| match new.cell.to_ascii_lowercase() {
        name if name == LOCAL => format!("{name}-cell"),
        name => name,
    });
    let context = Context {
        version: 1,
        cell: token.cell,
        cell_name: new.cell,
        principal: new.principal,
        role: new.role,
        nodes,
        key: key.pem(),
        certificate: new.certificate,
        authority: new.authority,
    };
    // What cannot be used is not kept.
    context.credentials(&name)?;
    shelf.save(&name, &context)?;
    shelf.choose(&name)?;
    let document = json!({
        "context": name, "cell": context.cell_name, "principal": context.principal, "role": context.role,
        "nodes": context.nodes,
    });
    out.either(&document, |_| {
        format!(
            "logged in to the cell {} as {} ({}); context {name} is used from now on",
            shown(&context.cell_name),
            shown(&context.principal.0),
            context.role
        )
    })
}

/// Knocks until a node lets in or refuses: with the same key each time, so that the token is used once.
async fn enter(node: &str, token: &Token, key: &Key) -> Result<NewPrincipal, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let why = match knock_at(node, token, key).await {
            Ok(Joined::Principal(new)) => return Ok(*new),
            Ok(Joined::Refused(refusal)) if refusal.code != "no_quorum" => return Err(refusal.into()),
            Ok(Joined::Refused(refusal)) => refusal.message,
            Ok(_) => {
                let what = "another answer than to a login".to_owned();
                return Err(Failure::Garbled { place: format!("the node at {node}"), what });
            }
            Err(why) => why,
        };
        if Instant::now() >= deadline {
            return Err(Failure::Nobody(Tried(vec![(node.to_owned(), why)])));
        }
        sleep(BETWEEN).await;
    }
}

async fn knock_at(node: &str, token: &Token, key: &Key) -> Result<Joined, String> {
    let addresses = lookup_host(node).await.map_err(|why| format!("the name has no address: {why}"))?;
    let mut why = "the name has no address".to_owned();
    for to in addresses {
        let whom = Whom::Principal { secret: token.secret().to_owned() };
        match knock(to, &token.cell, key, whom).await {
            Ok(joined) => return Ok(joined),
            Err(error) => why = KnockError::to_string(&error),
        }
    }
    Err(why)
}

pub(super) fn list(out: &mut Out) -> Result<(), Failure> {
    let shelf = Shelf::open()?;
    let current = shelf.current()?;
    let mut items = vec![json!({"name": LOCAL, "current": current.is_none()})];
    for name in shelf.names()? {
        // One that cannot be read is no reason not to show the others.
        let mut item = match shelf.load(&name) {
            Ok(context) => {
                let until = context.credentials(&name).and_then(|me| {
                    me.until().map_err(|source| ContextError::Credentials { name: name.clone(), source })
                });
                json!({
                    "cell": context.cell_name, "cell_id": context.cell, "principal": context.principal,
                    "role": context.role, "nodes": context.nodes,
                    "until": until.map(|at| humantime::format_rfc3339_seconds(at).to_string()).ok(),
                })
            }
            Err(why) => json!({"error": why.to_string()}),
        };
        item["current"] = json!(current.as_ref() == Some(&name));
        item["name"] = json!(name);
        items.push(item);
    }
    let now = humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string();
    out.either(&json!({"as_of": now, "stale": false, "missing": [], "items": items}), output::contexts)
}

pub(super) fn choose(name: &str, out: &mut Out) -> Result<(), Failure> {
    Shelf::open()?.choose(name)?;
    out.either(&json!({"context": name}), |_| match name {
        LOCAL => "from now on this machine's own agent is asked".to_owned(),
        name => format!("context {name} is used from now on"),
    })
}

/// Keeps the order in which nodes answered, if nobody has changed them meanwhile.
pub(super) fn prefer(before: &[String], now: &[String]) {
    let update = || -> Result<(), ContextError> {
        let shelf = Shelf::open()?;
        let Some(name) = shelf.current()? else { return Ok(()) };
        let context = shelf.load(&name)?;
        if context.nodes != before {
            return Ok(());
        }
        shelf.save(&name, &Context { nodes: now.to_vec(), ..context })
    };
    if let Err(why) = update() {
        tracing::debug!("the order of the nodes is not kept: {why}");
    }
}

/// Keeps where the nodes are now, as they said themselves. `answered`: the one that said so.
pub(super) fn learn(nodes: &serde_json::Value, answered: Option<String>) {
    let alive = nodes["items"].as_array().into_iter().flatten().filter(|node| node["state"] == "alive");
    let addresses: Vec<String> = alive
        .filter_map(|node| node["addr"].as_str()?.parse::<SocketAddr>().ok())
        .map(|addr| addr.to_string())
        .collect();
    let update = || -> Result<(), ContextError> {
        let shelf = Shelf::open()?;
        let Some(name) = shelf.current()? else { return Ok(()) };
        let mut context = shelf.load(&name)?;
        let mut known: Vec<String> = addresses.clone();
        known.sort_by_key(|addr| Some(addr) != answered.as_ref());
        // Names that people gave may outlive addresses.
        known.extend(context.nodes.iter().filter(|node| node.parse::<SocketAddr>().is_err()).cloned());
        if addresses.is_empty() || known == context.nodes {
            return Ok(());
        }
        context.nodes = known;
        shelf.save(&name, &context)
    };
    if let Err(why) = update() {
        tracing::debug!("the addresses of the nodes are not kept: {why}");
    }
}
