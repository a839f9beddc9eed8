//! The agent's arguments and configuration file.

use std::{collections::BTreeMap, fs, io, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use agent::{
    config::{Config, LISTEN, SOCKET},
    estimate::{Preset, Settings as Estimates},
    images::{Rules, registry::Settings},
};
use oci::network::BadSubnet;
use placement::{
    job::{name::is_node_label, quantity},
    resources::{CPU, DISK, MEMORY, Resources},
};
use serde::Deserialize;

use crate::{
    address::{self, HostPort},
    args,
    times::Patience,
    token::{self, TokenError, VARIABLE},
};

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label(String, String);

/// `cpu=2,memory=4GiB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capacity(Resources);

/// A configuration that is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {why}")]
    Syntax { path: PathBuf, why: toml::de::Error },
    #[error("{path}: {why}")]
    Value { path: PathBuf, why: String },
    #[error("no data directory is named: give --data DIR, or data = \"DIR\" in {path}")]
    NoData { path: PathBuf },
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "to join a cell takes a token (--token T, --token @FILE or {VARIABLE}): `covey token` on one of its nodes prints one"
    )]
    NoToken,
    #[error("--token admits this node to a cell: name one of its nodes with --join HOST:PORT")]
    NoJoin,
}

/// A configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    data: Option<PathBuf>,
    socket: Option<PathBuf>,
    name: Option<String>,
    cell: Option<String>,
    listen: Option<String>,
    advertise: Option<String>,
    join: Option<Join>,
    token: Option<String>,
    subnet: Option<String>,
    #[serde(default)]
    label: BTreeMap<String, String>,
    #[serde(default)]
    capacity: BTreeMap<String, Amount>,
    #[serde(default)]
    registry: Registry,
    #[serde(default)]
    collect: Collect,
    #[serde(default)]
    estimate: Estimate,
}

/// How tasks' needs are estimated.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Estimate {
    preset: Option<String>,
    hold: Option<String>,
    horizon: Option<String>,
}

/// How much risk the node takes with what its tasks do not use; none: nothing of it is given to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reclaim(Option<Preset>);

/// Where images come from that no node has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    /// What a name without a registry means; empty: nothing.
    default: Option<String>,
    #[serde(default)]
    insecure: Vec<String>,
    #[serde(default)]
    ca: Vec<PathBuf>,
    auth_file: Option<PathBuf>,
    #[serde(default)]
    mirror: BTreeMap<String, Vec<String>>,
}

/// When images that nobody uses go.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Collect {
    unused: Option<String>,
    above: Option<u8>,
    below: Option<u8>,
}

/// As docker's `config.json`; there may be none.
const AUTH_FILE: &str = "/etc/covey/registries.json";

/// One address, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Join {
    Text(String),
    List(Vec<String>),
}

/// A number, or text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Whole(u64),
    Part(f64),
    Text(String),
}

/// What the command line, then the environment (`token`), then the file say.
pub(super) fn config(
    args: args::Agent,
    socket: Option<PathBuf>,
    exe: PathBuf,
    token: Option<String>,
) -> Result<Config, ConfigError> {
    let path = args.config.unwrap_or_default();
    let file = if path.as_os_str().is_empty() { Written::default() } else { read(&path)? };
    let value = |why| ConfigError::Value { path: path.clone(), why };
    let mut labels = BTreeMap::new();
    for (key, text) in file.label {
        let Label(key, text) = Label::new(&key, &text).map_err(value)?;
        labels.insert(key, text);
    }
    labels.extend(args.label.into_iter().map(|Label(key, value)| (key, value)));
    let mut capacity = Resources::default();
    for (name, amount) in file.capacity {
        let text = match amount {
            Amount::Whole(number) => number.to_string(),
            Amount::Part(number) => number.to_string(),
            Amount::Text(text) => text,
        };
        let (name, amount) = amount_of(&name, &text).map_err(value)?;
        capacity.set(&name, amount);
    }
    for (name, amount) in args.capacity.map(|Capacity(given)| given.0).unwrap_or_default() {
        capacity.set(&name, amount);
    }
    let parsed = |text: Option<String>, parse: fn(&str) -> Result<SocketAddr, String>| {
        text.map(|text| parse(&text)).transpose().map_err(value)
    };
    let (listen, advertise) =
        (parsed(file.listen, address::listen)?, parsed(file.advertise, address::advertise)?);
    let join = match file.join {
        _ if !args.join.is_empty() => args.join,
        Some(Join::Text(text)) => hosts(text.split(',')).map_err(value)?,
        Some(Join::List(list)) => hosts(list.iter().map(String::as_str)).map_err(value)?,
        None => Vec::new(),
    };
    let subnet = file.subnet.map(|text| text.parse().map_err(|why: BadSubnet| value(why.to_string())));
    let collect = file.collect.rules().map_err(value)?;
    let estimate = file.estimate.settings(args.estimate).map_err(value)?;
    let config = Config {
        registries: file.registry.settings(),
        collect,
        estimate,
        data: args.data.or(file.data).ok_or_else(|| ConfigError::NoData { path: path.clone() })?,
        socket: socket.or(file.socket).unwrap_or_else(|| PathBuf::from(SOCKET)),
        name: args.name.or(file.name),
        cell: args.cell.or(file.cell),
        listen: args.listen.or(listen).unwrap_or(LISTEN),
        advertise: args.advertise.or(advertise),
        join: join.iter().map(HostPort::to_string).collect(),
        token: None,
        labels,
        capacity,
        subnet: subnet.transpose()?,
        exe,
        dev: false,
    };
    // A cell that is there already wins: the token in a unit file may be long gone then, or used up.
    if config.has_cell() {
        return Ok(config);
    }
    if config.join.is_empty() {
        // What only lies about, in the environment or the file, is no mistake.
        return if args.token.is_some() { Err(ConfigError::NoJoin) } else { Ok(config) };
    }
    let (given, from) = match (args.token, token, file.token) {
        (Some(given), ..) => (given, "--token".to_owned()),
        (None, Some(given), _) => (given, VARIABLE.to_owned()),
        (None, None, Some(given)) => (given, path.display().to_string()),
        (None, None, None) => return Err(ConfigError::NoToken),
    };
    Ok(Config { token: Some(token::read(&given, &from)?.to_string()), ..config })
}

impl Registry {
    fn settings(self) -> Settings {
        let usual = Settings::default();
        Settings {
            default: match self.default {
                Some(none) if none.is_empty() => None,
                given => given.or(usual.default),
            },
            plain: self.insecure,
            ca: self.ca,
            mirrors: self.mirror,
            auth_file: Some(self.auth_file.unwrap_or_else(|| PathBuf::from(AUTH_FILE))),
            patience: usual.patience,
        }
    }
}

impl Collect {
    fn rules(self) -> Result<Rules, String> {
        let usual = Rules::default();
        let unused = match self.unused {
            None => usual.unused,
            Some(text) => text.parse::<Patience>().map_err(|why| format!("collect.unused: {why}"))?.0,
        };
        let (above, below) = (self.above.unwrap_or(usual.above), self.below.unwrap_or(usual.below));
        if above > 100 || below > above {
            return Err(format!(
                "collect.above = {above} and collect.below = {below} are shares of the disk in per cent, the second the lower"
            ));
        }
        Ok(Rules { unused, above, below })
    }
}

/// Less tells next to nothing; more is not remembered in any detail.
const HORIZON: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(7 * 86_400));
/// A task that is counted with less than its limit before it has come up takes others by surprise.
const HOLD: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));

impl Estimate {
    fn settings(self, flag: Option<Reclaim>) -> Result<Option<Estimates>, String> {
        let written =
            self.preset.map(|text| text.parse::<Reclaim>().map_err(|why| format!("estimate.preset: {why}")));
        let time = |key, text: Option<String>, usual, (least, most): (Duration, Duration)| {
            let Some(text) = text else { return Ok(usual) };
            let time = text.parse::<Patience>().map_err(|why| format!("estimate.{key}: {why}"))?.0;
            if (least..=most).contains(&time) {
                return Ok(time);
            }
            let (least, most) = (least.as_secs(), most.as_secs());
            Err(format!("estimate.{key} = \"{text}\" must be from {least}s to {most}s"))
        };
        let horizon = time("horizon", self.horizon, Duration::from_secs(86_400), HORIZON)?;
        let hold = time("hold", self.hold, Duration::from_secs(300), HOLD)?;
        let Reclaim(preset) = flag.or(written.transpose()?).unwrap_or(Reclaim(Some(Preset::Normal)));
        Ok(preset
            .map(|preset| Estimates::of(preset, horizon.as_millis() as u64).holding(hold.as_millis() as u64)))
    }
}

/// What an agent does that is told nothing.
pub(in crate::commands) fn usual_estimate() -> Option<Estimates> {
    Estimate::default().settings(None).unwrap_or_default()
}

impl FromStr for Reclaim {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Reclaim(match text {
            "off" => None,
            "conservative" => Some(Preset::Conservative),
            "normal" => Some(Preset::Normal),
            "aggressive" => Some(Preset::Aggressive),
            other => return Err(format!("must be conservative, normal, aggressive or off, not `{other}`")),
        }))
    }
}

fn hosts<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<HostPort>, String> {
    texts.map(|text| text.trim().parse()).collect()
}

fn read(path: &PathBuf) -> Result<Written, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    toml::from_str(&text).map_err(|why| ConfigError::Syntax { path: path.clone(), why })
}

impl Label {
    fn new(key: &str, value: &str) -> Result<Self, String> {
        match [key, value].into_iter().find(|part| !is_node_label(part)) {
            None => Ok(Label(key.to_owned(), value.to_owned())),
            Some(part) => Err(format!(
                "`{part}` cannot be in a label: it has the form KEY=VALUE, of letters, digits and . _ - / : +"
            )),
        }
    }
}

impl FromStr for Label {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        Label::new(key, value)
    }
}

impl FromStr for Capacity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut capacity = Resources::default();
        for part in text.split(',') {
            let (name, amount) = part
                .split_once('=')
                .ok_or("it has the form NAME=AMOUNT,…, for instance cpu=2,memory=4GiB")?;
            let (name, amount) = amount_of(name, amount)?;
            capacity.set(&name, amount);
        }
        Ok(Capacity(capacity))
    }
}

/// `cpu` and `memory` as in a job file; any other resource is counted.
fn amount_of(name: &str, amount: &str) -> Result<(String, u64), String> {
    let (name, amount) = match name {
        "cpu" => (CPU, quantity::parse_cpu(amount)),
        "memory" => (MEMORY, quantity::parse_bytes(amount)),
        "disk" => (DISK, quantity::parse_bytes(amount)),
        other if is_node_label(other) => {
            let count =
                amount.parse().map_err(|_| format!("`{amount}` of `{other}` is not a whole number"))?;
            return Ok((other.to_owned(), count));
        }
        other => return Err(format!("`{other}` cannot be the name of a resource")),
    };
    amount.map(|amount| (name.to_owned(), amount)).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests;
