//! `USER[:GROUP]`, looked up in the container's own `/etc/passwd` and `/etc/group`.

use std::path::Path;

use super::inside::Inside;
use crate::bundle::Failure;

/// Who the container's program runs as, in the container's ids.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// Names must be known; numbers need not be, as with Docker: an unknown user has group 0 and the home `/`.
pub(super) fn resolve(inside: &Inside, user: Option<&str>) -> Result<User, Failure> {
    let read = |path| inside.read(Path::new(path)).unwrap_or_default();
    look_up(user.unwrap_or_default(), &read("/etc/passwd"), &read("/etc/group"))
}

fn look_up(wanted: &str, passwd: &str, group: &str) -> Result<User, Failure> {
    let (name, wanted_group) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let entry = passwd
        .lines()
        .map(fields)
        .find(|f| f.len() >= 6 && (f[0] == name || number.is_some_and(|n| id(f[2]) == Some(n))));

    let unknown = |kind: &str, name: &str, file: &str| Failure {
        what: format!("run as {wanted}"),
        why: format!("the image has no {kind} {name} in {file}"),
        hint: format!("name one that is in the image's {file}, or use a number"),
    };
    let mut user = match (&entry, number) {
        (Some(f), _) => User {
            uid: id(f[2]).ok_or_else(|| unknown("user", name, "/etc/passwd"))?,
            gid: id(f[3]).unwrap_or(0),
            groups: Vec::new(),
            home: f[5].to_string(),
        },
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new(), home: "/".into() },
        (None, None) => return Err(unknown("user", name, "/etc/passwd")),
    };
    let groups = || group.lines().map(fields).filter(|f| f.len() >= 3);
    match wanted_group.filter(|g| !g.is_empty()) {
        Some(wanted) => {
            let known = groups().find(|f| f[0] == wanted).and_then(|f| id(f[2]));
            user.gid = known
                .or_else(|| wanted.parse().ok())
                .ok_or_else(|| unknown("group", wanted, "/etc/group"))?;
        }
        None => {
            let login = entry.map(|f| f[0]);
            let member = |f: &Vec<&str>| f.get(3).is_some_and(|m| m.split(',').any(|m| Some(m) == login));
            user.groups = groups().filter(member).filter_map(|f| id(f[2])).collect();
        }
    }
    if user.home.is_empty() {
        user.home = "/".into();
    }
    Ok(user)
}

fn fields(line: &str) -> Vec<&str> {
    line.trim().split(':').collect()
}

fn id(text: &str) -> Option<u32> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102::/srv:/bin/false\nbad line\n";
    const GROUP: &str = "root:x:0:\nweb:x:102:\nlog:x:7:web,other\nadm:x:4:other\n";

    fn user(wanted: &str) -> Result<User, String> {
        look_up(wanted, PASSWD, GROUP).map_err(|e| e.to_string())
    }

    #[test]
    fn names_and_numbers() {
        let web = User { uid: 101, gid: 102, groups: vec![7], home: "/srv".into() };
        assert_eq!(user("web").as_ref(), Ok(&web));
        assert_eq!(user("101").unwrap(), web);
        assert_eq!(user("").unwrap(), User { uid: 0, gid: 0, groups: vec![], home: "/root".into() });
        assert_eq!(user("4711").unwrap(), User { uid: 4711, gid: 0, groups: vec![], home: "/".into() });
        assert_eq!(user("web:adm").unwrap(), User { uid: 101, gid: 4, groups: vec![], home: "/srv".into() });
        assert_eq!(user("5:6").unwrap().gid, 6);
    }

    #[test]
    fn the_unknown_are_named() {
        assert_eq!(user("nobody").unwrap_err(), "run as nobody: the image has no user nobody in /etc/passwd");
        assert_eq!(
            user("web:nope").unwrap_err(),
            "run as web:nope: the image has no group nope in /etc/group"
        );
        assert!(look_up("-1", "", "").is_err() && look_up("4294967296", "", "").is_err());
    }
}
