//! From a job's document (INTERFACES, "Job file", as JSON) to a `Job`, or to the first thing that is wrong with it.
//!
//! In each table unknown keys come first, since a misspelt key is often why another seems to be missing; then its
//! known keys in the order of the tables below.

mod surroundings;

use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::ops::RangeInclusive;
use serde_json::Value;

use super::{
    Band, Constraint, Health, Job, Kind, Probe, Template,
    container::{Container, Network},
    expand,
    field::{DocumentError, Field, Keys, Table, nearest},
    name,
    quantity::{self, BadQuantity},
    signal::Signal,
};
use crate::resources::{CPU, DISK, MEMORY, Resources};

/// The largest count of a job.
pub const MAX_COUNT: u32 = 100_000;
/// Text in a document, keys included, in bytes: it is a ledger entry, kept in several versions by every node.
pub const MAX_DOCUMENT: usize = 256 << 10;

const MAX_ITEMS: usize = 1000;
const MAX_PORTS: usize = 32;
/// Labels of a `spread`.
pub(crate) const MOST_SPREAD: usize = 8;
/// Each makes a template of its own, so this and `MAX_DOCUMENT` bound a job's memory.
const MAX_OVERRIDES: usize = 100;
const MAX_CPU_MILLI: u64 = 10_000_000;
/// Less is a slip of the unit, as in `memory = 64`; no container starts in it.
const MIN_MEMORY: u64 = 512 << 10;
/// With `MAX_COUNT` of them a sum still fits 64 bits.
const MAX_MEMORY: u64 = 16 << 40;
const MIN_DISK: u64 = 1 << 20;
const MAX_DISK: u64 = 1 << 50;
const MAX_COUNTABLE: u64 = 1 << 32;
const DAY_MS: u64 = 24 * 3_600_000;

const JOB_KEYS: &[&str] =
    &["name", "kind", "band", "priority", "count", "require", "prefer", "spread", "task", "override"];
const TASK_KEYS: &[&str] = &[
    "image",
    "command",
    "env",
    "cpu",
    "memory",
    "disk",
    "io",
    "pids",
    "class",
    "signal",
    "resources",
    "ports",
    "network",
    "grace",
    "health",
    "ready",
    "startup",
    "user",
    "workdir",
    "volumes",
    "logs",
    "process",
    "privileges",
    "estimate",
];

const OVERRIDE_KEYS: &[&str] = &{
    let mut keys = ["index"; TASK_KEYS.len() + 1];
    let mut i = 0;
    while i < TASK_KEYS.len() {
        keys[i + 1] = TASK_KEYS[i];
        i += 1;
    }
    keys
};

const JOB: Keys = Keys {
    known: JOB_KEYS,
    later: &["after", "alloc", "budget", "schedule", "strict", "update"],
    elsewhere: (TASK_KEYS, "it belongs below [task]"),
};
const TASK: Keys = Keys {
    known: TASK_KEYS,
    later: &["files", "retries", "secrets"],
    elsewhere: (JOB_KEYS, "it belongs above [task]"),
};
const OVERRIDE: Keys = Keys {
    known: OVERRIDE_KEYS,
    later: TASK.later,
    elsewhere: (JOB_KEYS, "it holds for all indexes: it belongs above [task]"),
};
const HEALTH: Keys = Keys {
    known: &["http", "port", "tcp", "command", "interval", "timeout", "failures", "start"],
    later: &[],
    elsewhere: (TASK_KEYS, "it belongs to the task, not to its health check"),
};

/// What every task finds in its environment beside its ports.
const GIVEN: &[&str] = &[
    "COVEY_CELL",
    "COVEY_OWNER",
    "COVEY_JOB",
    "COVEY_INDEX",
    "COVEY_GENERATION",
    "COVEY_NODE",
    "COVEY_GRACE_MS",
];

impl Job {
    /// Reads a job's document as the job file of INTERFACES has it. Never panics, whatever the value.
    pub fn from_document(document: &Value) -> Result<Job, DocumentError> {
        let root = Field::root(document);
        if size(document) > MAX_DOCUMENT {
            return Err(root.error(format_args!("holds more than {} KiB of text", MAX_DOCUMENT >> 10), None));
        }
        let table = root.table(&JOB)?;
        let name = label(&table.need("name", "give the job a name: name = \"web\"")?)?;
        let kind = table.get("kind").map_or(Ok(Kind::Service), |f| read_kind(&f))?;
        let band = table.get("band").map_or(Ok(Band::Batch), |f| {
            f.text("a string")?
                .parse()
                .map_err(|_| f.error("must be free, batch, production or monitoring", None))
        })?;
        let lowest = band.lowest();
        let priority = table.get("priority").map_or(Ok(lowest + 50), |f| priority(&f, band))?;
        let count = table.get("count").map_or(Ok(1), |f| f.whole_u32(0..=MAX_COUNT))?;
        let require = constraints(&table, "require")?;
        let prefer = constraints(&table, "prefer")?;
        let spread = table.get("spread").map_or(Ok(Vec::new()), |f| spread(&f))?;
        let task = table.need("task", "say what to run: [task] with image = \"hello:1\"")?;
        let task = template(&task.table(&TASK)?, None)?;
        let overrides = table.get("override").map_or(Ok(BTreeMap::new()), |f| overrides(&f, &task))?;
        let in_override = overrides.values().any(|task| task.container.signal.is_some());
        let with_signal = [("task", task.container.signal.is_some()), ("override", in_override)];
        for (key, _) in with_signal.into_iter().filter(|(_, signal)| *signal && !band.is_prod()) {
            let Some(f) = table.get(key) else { continue };
            let hint = format!("this is {band}: it gives room back to production, and is given none");
            return Err(f.error("has a `signal`, which is for production", Some(hint)));
        }
        Ok(Job { name, kind, band, priority, count, require, prefer, spread, task, overrides })
    }
}

/// Whether two documents ask for the same, however they are written. Of what this build cannot read it knows only
/// whether it is identical.
pub fn same_meaning(a: &Value, b: &Value) -> bool {
    a == b || matches!((Job::from_document(a), Job::from_document(b)), (Ok(a), Ok(b)) if a == b)
}

/// Changes the count and leaves all else as it was submitted.
pub fn set_count(document: &mut Value, count: u32) {
    if let Some(map) = document.as_object_mut() {
        map.insert("count".to_string(), Value::from(count));
    }
}

fn size(document: &Value) -> usize {
    let (mut sum, mut rest) = (0usize, Vec::from([document]));
    while let Some(value) = rest.pop() {
        match value {
            Value::String(text) => sum += text.len(),
            Value::Array(items) => rest.extend(items),
            Value::Object(map) => {
                sum += map.keys().map(String::len).sum::<usize>();
                rest.extend(map.values());
            }
            _ => {}
        }
        sum += 1;
    }
    sum
}

fn label(f: &Field<'_>) -> Result<String, DocumentError> {
    let text = f.text("a string")?;
    if name::is_label(text) {
        return Ok(text.to_string());
    }
    let hint = "a lower-case letter, then lower-case letters, digits and -, at most 63";
    Err(f.error(format_args!("must be a DNS label, not `{text}`"), Some(hint.to_string())))
}

fn read_kind(f: &Field<'_>) -> Result<Kind, DocumentError> {
    match f.text("a string")? {
        "service" => Ok(Kind::Service),
        "batch" => Ok(Kind::Batch),
        later @ ("system" | "alloc") => {
            let hint = "service and batch are".to_string();
            Err(f.error(format_args!("= \"{later}\" is not supported yet"), Some(hint)))
        }
        other => Err(f.error(format_args!("must be service or batch, not `{other}`"), None)),
    }
}

fn priority(f: &Field<'_>, band: Band) -> Result<u32, DocumentError> {
    let (low, high) = (band.lowest(), band.lowest() + 99);
    f.whole_u32(low..=high).map_err(|error| DocumentError {
        hint: Some(format!("band {band} has the priorities {low} to {high}")),
        ..error
    })
}

fn constraints(table: &Table<'_>, key: &str) -> Result<Vec<Constraint>, DocumentError> {
    let Some(f) = table.get(key) else { return Ok(Vec::new()) };
    let texts = f.texts("a list of strings such as [\"arch=x86_64\"]", MAX_ITEMS)?;
    texts.into_iter().map(|(text, item)| text.parse().map_err(|bad| item.because(bad))).collect()
}

fn spread(f: &Field<'_>) -> Result<Vec<String>, DocumentError> {
    let mut seen = Vec::new();
    for (text, item) in f.texts("a list of labels such as [\"rack\"]", MOST_SPREAD)? {
        if !name::is_node_label(text) {
            return Err(item.error(format_args!("must be the name of a label, not `{text}`"), None));
        }
        unique(&mut seen, text, &item)?;
    }
    Ok(seen)
}

fn unique(seen: &mut Vec<String>, text: &str, item: &Field<'_>) -> Result<(), DocumentError> {
    if seen.iter().any(|other| other == text) {
        return Err(item.error(format_args!("repeats `{text}`"), None));
    }
    seen.push(text.to_string());
    Ok(())
}

fn overrides(f: &Field<'_>, base: &Template) -> Result<BTreeMap<u32, Arc<Template>>, DocumentError> {
    let mut out = BTreeMap::new();
    for item in f.list("a list of tables, [[override]]", MAX_OVERRIDES)? {
        let table = item.table(&OVERRIDE)?;
        let index = table.need("index", "say which indexes it is for: index = [0]")?;
        let indexes = index.list("a list of indexes such as [0, 1]", MAX_ITEMS)?;
        if indexes.is_empty() {
            return Err(index.error("names no index", None));
        }
        let task = Arc::new(template(&table, Some(base))?);
        for index in indexes {
            let number = index.whole_u32(0..=MAX_COUNT)?;
            if out.insert(number, task.clone()).is_some() {
                return Err(index.error(format_args!("repeats index {number}"), None));
            }
        }
    }
    Ok(out)
}

/// The `[task]` table, or what an `[[override]]` changes of it: environments are merged, all else is replaced.
fn template(table: &Table<'_>, base: Option<&Template>) -> Result<Template, DocumentError> {
    let mut task = match base {
        Some(base) => base.clone(),
        None => Template {
            image: image(&table.need("image", "say what to run: image = \"hello:1\"")?)?,
            command: None,
            env: BTreeMap::new(),
            limit: Resources::new(100, 128 << 20),
            ports: Vec::new(),
            grace_ms: 10_000,
            health: None,
            ready: None,
            startup: None,
            container: Container::default(),
            estimate: true,
        },
    };
    if let Some(f) = table.get("image") {
        task.image = image(&f)?;
    }
    if let Some(f) = table.get("command") {
        task.command = Some(command(&f)?);
    }
    if let Some(f) = table.get("env") {
        task.env.extend(env(&f)?);
    }
    if let Some(f) = table.get("cpu") {
        let milli = amount(&f, "a number of cores", quantity::parse_cpu)?;
        task.limit.set(CPU, within(&f, milli, 1..=MAX_CPU_MILLI, quantity::format_cpu)?);
    }
    if let Some(f) = table.get("memory") {
        let bytes = amount(&f, "an amount such as \"64MiB\"", quantity::parse_bytes)?;
        task.limit.set(MEMORY, within(&f, bytes, MIN_MEMORY..=MAX_MEMORY, quantity::format_bytes)?);
    }
    if let Some(f) = table.get("disk") {
        let bytes = amount(&f, "an amount such as \"1GiB\"", quantity::parse_bytes)?;
        task.limit.set(DISK, within(&f, bytes, MIN_DISK..=MAX_DISK, quantity::format_bytes)?);
    }
    if let Some(f) = table.get("resources") {
        countable(&f, &mut task.limit)?;
    }
    if let Some(f) = table.get("ports") {
        (task.ports, task.container.inside) = ports(&f)?;
    }
    if let Some(f) = table.get("grace") {
        task.grace_ms = duration(&f, 0..=DAY_MS)?;
    }
    for (key, check) in
        [("health", &mut task.health), ("ready", &mut task.ready), ("startup", &mut task.startup)]
    {
        if let Some(f) = table.get(key) {
            *check = Some(health(&f)?);
        }
    }
    if let Some(f) = table.get("estimate") {
        task.estimate = f.value.as_bool().ok_or_else(|| f.error("must be true or false", None))?;
    }
    surroundings::read(table, &mut task.container)?;
    agree(table, &task)?;
    Ok(task)
}

fn image(f: &Field<'_>) -> Result<String, DocumentError> {
    let text = f.text("a string")?;
    if (1..=512).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(text.to_string());
    }
    Err(f.error("must be the name of an image", Some("for instance \"hello:1\"".to_string())))
}

fn command(f: &Field<'_>) -> Result<Vec<String>, DocumentError> {
    let texts = f.texts("a list of strings such as [\"/hello\", \"-v\"]", MAX_ITEMS)?;
    if texts.first().is_none_or(|(program, _)| program.is_empty()) {
        let hint = "leave `command` out to run the image's own".to_string();
        return Err(f.error("names no program", Some(hint)));
    }
    texts.into_iter().map(|(text, item)| value(text, &item)).collect()
}

fn env(f: &Field<'_>) -> Result<Vec<(String, String)>, DocumentError> {
    let mut out = Vec::new();
    for (key, item) in f.entries("a table of strings", MAX_ITEMS)? {
        if key.starts_with("COVEY_") || key.starts_with("PORT_") {
            let hint = "names that begin with COVEY_ or PORT_ are covey's".to_string();
            return Err(item.error("is set by covey", Some(hint)));
        }
        if !name::is_variable(key) {
            let hint = "letters, digits and _, no digit first".to_string();
            return Err(item.error("is not the name of a variable", Some(hint)));
        }
        out.push((key.to_string(), value(item.text("a string")?, &item)?));
    }
    Ok(out)
}

/// A text that the kernel takes as an argument or variable, with well-formed `${VAR}`s.
fn value(text: &str, f: &Field<'_>) -> Result<String, DocumentError> {
    if text.contains('\0') {
        return Err(f.error("holds a zero byte", None));
    }
    expand::variables(text).map_err(|bad| f.because(bad))?;
    Ok(text.to_string())
}

fn amount(
    f: &Field<'_>,
    wanted: &str,
    parse: fn(&str) -> Result<u64, BadQuantity>,
) -> Result<u64, DocumentError> {
    parse(&f.scalar(wanted)?).map_err(|bad| f.because(bad))
}

fn within(
    f: &Field<'_>,
    amount: u64,
    range: RangeInclusive<u64>,
    format: fn(u64) -> String,
) -> Result<u64, DocumentError> {
    if range.contains(&amount) {
        return Ok(amount);
    }
    let (low, high) = (format(*range.start()), format(*range.end()));
    Err(f.error(format_args!("must be from {low} to {high}, not {}", format(amount)), None))
}

fn duration(f: &Field<'_>, range: RangeInclusive<u64>) -> Result<u64, DocumentError> {
    let text = f.text("a time such as \"10s\"")?;
    let ms = quantity::parse_duration(text).map_err(|bad| f.because(bad))?;
    within(f, ms, range, quantity::format_duration)
}

/// Names, and the numbers that some have inside.
fn ports(f: &Field<'_>) -> Result<(Vec<String>, BTreeMap<String, u16>), DocumentError> {
    let (mut seen, mut inside) = (Vec::new(), BTreeMap::new());
    for (text, item) in f.texts("a list of names such as [\"http\"]", MAX_PORTS)? {
        let (name, number) = text.split_once('=').map_or((text, None), |(name, n)| (name, Some(n)));
        if !name::is_port(name) {
            let hint = "it becomes the variable PORT_name: a letter, then letters, digits and _".to_string();
            return Err(item.error(format_args!("must be the name of a port, not `{name}`"), Some(hint)));
        }
        if let Some(number) = number {
            let number: u16 = number.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                item.error(format_args!("must have a number from 1 to 65535 after `=`, not `{number}`"), None)
            })?;
            inside.insert(name.to_string(), number);
        }
        unique(&mut seen, name, &item)?;
    }
    Ok((seen, inside))
}

/// Whatever else nodes may declare: `{ gpu = 1 }`.
fn countable(f: &Field<'_>, limit: &mut Resources) -> Result<(), DocumentError> {
    for (key, item) in f.entries("a table of whole numbers such as { gpu = 1 }", MAX_ITEMS)? {
        if ["cpu", "memory", "disk", CPU, MEMORY, DISK].contains(&key) {
            return Err(
                item.error("is no countable resource", Some("use task.cpu, task.memory, task.disk".into()))
            );
        }
        if !name::is_label(key) {
            return Err(item.error("is not the name of a resource", Some("for instance gpu".to_string())));
        }
        limit.set(key, item.whole(0..=MAX_COUNTABLE)?);
    }
    Ok(())
}

fn health(f: &Field<'_>) -> Result<Health, DocumentError> {
    let table = f.table(&HEALTH)?;
    let time = |key: &str, default, range| table.get(key).map_or(Ok(default), |f| duration(&f, range));
    Ok(Health {
        probe: probe(f, &table)?,
        interval_ms: time("interval", 2_000, 100..=DAY_MS)?,
        timeout_ms: time("timeout", 1_000, 1..=DAY_MS)?,
        failures: table.get("failures").map_or(Ok(3), |f| f.whole_u32(1..=1000))?,
        start_ms: time("start", 30_000, 0..=DAY_MS)?,
    })
}

fn probe(f: &Field<'_>, table: &Table<'_>) -> Result<Probe, DocumentError> {
    let port = |f: Field<'_>| f.text("a string").map(str::to_string);
    match (table.get("http"), table.get("tcp"), table.get("command")) {
        (Some(http), None, None) => {
            let name = || port(table.need("port", "name one of the task's ports")?);
            Ok(Probe::Http { http: path(&http)?, port: name()? })
        }
        (None, Some(tcp), None) => Ok(Probe::Tcp { tcp: port(tcp)? }),
        (None, None, Some(words)) => Ok(Probe::Command { command: command(&words)? }),
        (None, None, None) => {
            table.need(
                "http",
                "say what to ask for: http = \"/healthz\", tcp = \"PORT\" or command = [\"…\"]",
            )?;
            Err(f.error("checks nothing", None))
        }
        _ => Err(f.error("may have one of `http`, `tcp` and `command`", None)),
    }
}

/// Of a request.
fn path(f: &Field<'_>) -> Result<String, DocumentError> {
    let path = f.text("a string")?;
    if path.starts_with('/') && path.len() <= 1024 && path.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(path.to_string());
    }
    Err(f.error(format_args!("must be a path such as \"/healthz\", not `{path}`"), None))
}

/// What the keys of a finished template say about each other. The error points at a key of `table`: what comes from
/// the base agrees with the base, so a disagreement is due to one that is there.
fn agree(table: &Table<'_>, task: &Template) -> Result<(), DocumentError> {
    let ports: Vec<&str> = task.ports.iter().map(String::as_str).collect();
    for (key, check) in [("health", &task.health), ("ready", &task.ready), ("startup", &task.startup)] {
        if let Some(port) = check.as_ref().and_then(Health::port).filter(|port| !ports.contains(port))
            && let Some(f) = table.get(key).or_else(|| table.get("ports"))
        {
            let message = format_args!("checks the port `{port}`, which is not among `ports`");
            return Err(f.error(message, meant(port, &ports)));
        }
    }
    if let Some(port) = task.container.signal.as_ref().and_then(Signal::port).filter(|p| !ports.contains(p))
        && let Some(f) = table.get("signal").or_else(|| table.get("ports"))
    {
        let message = format_args!("asks the port `{port}`, which is not among `ports`");
        return Err(f.error(message, meant(port, &ports)));
    }
    let network = task.container.network;
    if let Some(f) = table.get("ports").or_else(|| table.get("network")) {
        if network == Network::None && !ports.is_empty() {
            return Err(f.error("needs a network", Some("network = \"none\" has no ports".to_string())));
        }
        if network == Network::Host && !task.container.inside.is_empty() {
            let hint = "a port has another number inside only with network = \"private\"".to_string();
            return Err(f.error("gives a port a number", Some(hint)));
        }
    }
    let command = task.command.iter().flatten().map(|text| ("command", text));
    let checks = [("health", &task.health), ("ready", &task.ready), ("startup", &task.startup)];
    let probes = checks.iter().flat_map(|(key, check)| match check.as_ref().map(|c| &c.probe) {
        Some(Probe::Command { command }) => command.iter().map(|text| (*key, text)).collect(),
        _ => Vec::new(),
    });
    let processes = task.container.processes.iter().flat_map(|p| &p.command).map(|text| ("process", text));
    let command = command.chain(probes).chain(processes);
    for (key, text) in command.chain(task.env.values().map(|text| ("env", text))) {
        let Some(f) = table.get(key).or_else(|| table.get("ports")) else { continue };
        for variable in expand::variables(text).unwrap_or_default() {
            if let Some(port) = variable.strip_prefix("PORT_").filter(|port| !ports.contains(port)) {
                let message = format_args!("uses ${{{variable}}}, but `{port}` is not among `ports`");
                return Err(f.error(message, meant(port, &ports)));
            }
            if variable.starts_with("COVEY_") && !GIVEN.contains(&variable) {
                let message = format_args!("uses ${{{variable}}}, which covey does not set");
                return Err(f.error(message, meant(variable, GIVEN)));
            }
        }
    }
    Ok(())
}

fn meant(word: &str, known: &[&str]) -> Option<String> {
    let near = nearest(word, known).map(|near| format!("did you mean `{near}`?"));
    near.or_else(|| (!known.is_empty()).then(|| format!("there are: {}", known.join(", "))))
}
