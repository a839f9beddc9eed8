//! Addresses as people write them.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// `HOST:PORT`: where somebody else listens. The host is a name or an IP address, IPv6 in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    host: String,
    port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = |why: &str| format!("`{text}` {why}: it has the form HOST:PORT, for instance n1:7411");
        let (host, port) = text.rsplit_once(':').ok_or_else(|| form("has no port"))?;
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(format!("`{text}` has no port: an IPv6 address has the form [{text}]:7411"));
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        if !good {
            return Err(form("names no host"));
        }
        match port.parse() {
            Ok(0) | Err(_) => Err(form("has no port from 1 to 65535")),
            Ok(port) => Ok(HostPort { host: host.to_owned(), port }),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A host's name or IPv4 address, as far as its letters tell.
fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// `IP:PORT` to listen on; port 0 for one that is free.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "`{text}` has not the form IP:PORT, for instance 0.0.0.0:7411 (all addresses) or [::]:7411 (IPv6 too)"
        )
    })
}

/// `IP:PORT` where others reach this node.
pub(crate) fn advertise(text: &str) -> Result<SocketAddr, String> {
    let form = |why: &str| {
        format!(
            "`{text}` {why}: say where other nodes reach this one, as IP:PORT, for instance 10.0.0.1:7411"
        )
    };
    let addr: SocketAddr = text.parse().map_err(|_| form("is no address"))?;
    if addr.ip().is_unspecified() || addr.ip().is_multicast() {
        return Err(form("is the address of no single machine"));
    }
    if addr.port() == 0 {
        return Err(form("has no port"));
    }
    Ok(addr)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for good in ["n1:7411", "n1.example.org:1", "10.0.0.1:65535", "[::1]:7411", "host_a.:7"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        let said = |text: &str, wanted: &str| {
            let why = text.parse::<HostPort>().unwrap_err();
            assert!(why.contains(wanted), "{text}: {why}");
        };
        said("n1", "`n1` has no port: it has the form HOST:PORT");
        said("", "has no port");
        said("n1:", "no port from 1 to 65535");
        said("n1:0", "no port from 1 to 65535");
        said("n1:70000", "no port from 1 to 65535");
        said(":7411", "names no host");
        said("n 1:7411", "names no host");
        said("http://n1:7411", "names no host");
        said("[n1]:7411", "names no host");
        said("fe80::1", "[fe80::1]:7411");
        said("n1..x:1", "names no host");
    }

    #[test]
    fn one_may_listen_everywhere_but_not_be_everywhere() {
        assert!(listen("0.0.0.0:0").is_ok() && listen("[::]:7411").is_ok());
        assert!(listen("n1:7411").unwrap_err().contains("the form IP:PORT"));
        assert!(listen("7411").unwrap_err().contains("0.0.0.0:7411"));
        assert_eq!(advertise("10.0.0.1:7411").unwrap().to_string(), "10.0.0.1:7411");
        for text in ["0.0.0.0:7411", "[::]:7411", "224.0.0.1:7411"] {
            assert!(advertise(text).unwrap_err().contains("of no single machine"), "{text}");
        }
        assert!(advertise("10.0.0.1:0").unwrap_err().contains("has no port"));
        assert!(advertise("10.0.0.1").unwrap_err().contains("is no address"));
    }
}
