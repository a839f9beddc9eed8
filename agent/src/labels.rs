//! What a node says of itself without being asked.

use std::{collections::BTreeMap, fs, path::Path};

use placement::resources::{CPU, MEMORY, Resources};

/// `arch`, `kernel`, `os`, `cgroup`; `cpu`, the model; and of what the agent may use, `cores` and `memory` in GiB.
pub(crate) fn detect(capacity: &Resources) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    if let Ok(uname) = nix::sys::utsname::uname() {
        labels.insert("arch".into(), uname.machine().to_string_lossy().into_owned());
        labels.insert("kernel".into(), number(&uname.release().to_string_lossy()));
    }
    if let Some(os) = os() {
        labels.insert("os".into(), os);
    }
    labels.insert("cgroup".into(), cgroup().into());
    if let Some(model) = fs::read_to_string("/proc/cpuinfo").ok().as_deref().and_then(model) {
        labels.insert("cpu".into(), model);
    }
    labels.insert("cores".into(), tenths(capacity.get(CPU), 1000));
    labels.insert("memory".into(), tenths(capacity.get(MEMORY), 1 << 30));
    labels
}

/// The part of a kernel's release that compares as a version.
fn number(release: &str) -> String {
    let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
    release[..end].trim_end_matches('.').to_string()
}

/// The first processor's model, in the characters of a label. Not every architecture names it.
fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    let (_, name) = line.split_once(':')?;
    let word = |c: char| c.is_ascii_alphanumeric() || "._/+".contains(c);
    let words: Vec<&str> = name.split(|c| !word(c)).filter(|part| !part.is_empty()).collect();
    (!words.is_empty()).then(|| words.join("-"))
}

/// In units of `one`, rounded down to a tenth: compares as a version.
fn tenths(amount: u64, one: u64) -> String {
    match (amount / one, amount % one * 10 / one) {
        (whole, 0) => whole.to_string(),
        (whole, tenth) => format!("{whole}.{tenth}"),
    }
}

fn os() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?;
    Some(id.trim_matches('"').to_string())
}

fn cgroup() -> &'static str {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "v2"
    } else if Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        "hybrid"
    } else if Path::new("/sys/fs/cgroup/memory").exists() {
        "v1"
    } else {
        "none"
    }
}

#[cfg(test)]
mod tests {
    use placement::node::DETECTED;

    use super::*;

    #[test]
    fn a_release_is_cut_to_its_version() {
        assert_eq!(number("6.1.0-18-cloud-amd64"), "6.1.0");
        assert_eq!(number("6.18.44"), "6.18.44");
        assert_eq!(number("5.15.-rc1"), "5.15");
    }

    #[test]
    fn machines_are_told_apart() {
        let text = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.20GHz\nflags\t: fpu\n";
        assert_eq!(model(text).as_deref(), Some("Intel-R-Xeon-R-CPU-2.20GHz"));
        assert_eq!(model("processor : 0\nBogoMIPS : 50.00\n"), None);
        assert_eq!([tenths(4000, 1000), tenths(500, 1000)], ["4", "0.5"]);
        assert_eq!(tenths((8 << 30) - 1, 1 << 30), "7.9");
        let labels = detect(&Resources::new(2000, 4 << 30));
        assert_eq!((labels["cores"].as_str(), labels["memory"].as_str()), ("2", "4"));
        assert!(labels.keys().all(|label| DETECTED.contains(&label.as_str())), "{labels:?}");
        let fits = placement::job::name::is_node_label;
        assert!(labels.iter().all(|(label, value)| fits(label) && fits(value)), "{labels:?}");
    }
}
