//! Which addresses a node's private networks have.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Links to containers are told apart by four digits of their addresses.
const MOST: u32 = 0xfff0;

/// A range of IPv4 addresses, `10.200.16.0/20`. Its first address is the node's own towards its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

/// A text that names no subnet that would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no subnet for private networks: write one of private addresses like 10.200.0.0/20, of 8 to 29 bits"
)]
pub struct BadSubnet(String);

impl Subnet {
    /// The subnet that `address` lies in.
    pub(super) fn of(address: Ipv4Addr, prefix: u8) -> Subnet {
        let prefix = prefix.min(32);
        Subnet { base: address.to_bits() & mask(prefix), prefix }
    }

    /// How many bits all of its addresses share.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub(super) fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix))
    }

    pub(super) fn base(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base)
    }

    /// The node's own address.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base + 1)
    }

    /// How many containers it has room for: not those with the subnet's first, the node's and the last address.
    pub fn room(&self) -> u32 {
        ((u32::MAX >> self.prefix) - 2).min(MOST)
    }

    /// The addresses for containers, from the `first` (any number) on, all round.
    pub(super) fn from(&self, first: u32) -> impl Iterator<Item = Ipv4Addr> {
        let (base, room) = (self.base, self.room());
        (0..room).map(move |n| {
            let at = (u64::from(first) + u64::from(n)) % u64::from(room);
            Ipv4Addr::from_bits(base + 2 + at as u32)
        })
    }

    /// How far an address lies from the subnet's first.
    pub(super) fn offset(&self, address: Ipv4Addr) -> u32 {
        address.to_bits().wrapping_sub(self.base)
    }

    fn overlaps(&self, other: &Subnet) -> bool {
        let mask = mask(self.prefix.min(other.prefix));
        self.base & mask == other.base & mask
    }

    /// The first in `taken` that shares addresses with it.
    pub(super) fn clash<'a>(&self, taken: &'a [Subnet]) -> Option<&'a Subnet> {
        taken.iter().find(|other| self.overlaps(other))
    }

    /// One that shares no address with those `taken`. Where the search begins depends on the node, so that nodes (and
    /// agents on one machine that start at the same time) do not all take the same.
    pub(super) fn choose(node: u64, taken: &[Subnet]) -> Option<Subnet> {
        // 10.128.0.0/9 in parts of 4093 addresses: rarely used, unlike 10.0.0.0, 172.16.0.0 and 192.168.0.0.
        const PARTS: u64 = 1 << 11;
        (0..PARTS)
            .map(|n| node.wrapping_add(n) % PARTS)
            .map(|part| Subnet {
                base: Ipv4Addr::new(10, 128, 0, 0).to_bits() + (part << 12) as u32,
                prefix: 20,
            })
            .find(|subnet| subnet.clash(taken).is_none())
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base(), self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = BadSubnet;

    fn from_str(text: &str) -> Result<Subnet, BadSubnet> {
        let bad = || BadSubnet(text.to_string());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let subnet = Subnet::of(address, prefix);
        let private = [(10, 0, 8), (172, 16, 12), (192, 168, 16), (100, 64, 10)]
            .map(|(a, b, prefix)| Subnet::of(Ipv4Addr::new(a, b, 0, 0), prefix));
        let inside = private.iter().any(|range| range.prefix <= prefix && range.overlaps(&subnet));
        match (8..=29).contains(&prefix) && inside && subnet.base() == address {
            true => Ok(subnet),
            false => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn says_what_it_is_and_refuses_what_is_none() {
        let small = subnet("192.168.7.8/29");
        assert_eq!(small.to_string(), "192.168.7.8/29");
        assert_eq!((small.gateway(), small.room()), (Ipv4Addr::new(192, 168, 7, 9), 5));
        for bad in
            ["10.0.0.0", "10.0.0.1/24", "8.8.8.0/24", "10.0.0.0/30", "0.0.0.0/0", "172.32.0.0/16", "x/8"]
        {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
        assert!("100.64.0.0/10".parse::<Subnet>().is_ok());
    }

    #[test]
    fn addresses_go_round_and_leave_out_the_nodes_own() {
        let all: Vec<String> = subnet("10.9.8.0/29").from(7).map(|a| a.to_string()).collect();
        assert_eq!(all, ["10.9.8.4", "10.9.8.5", "10.9.8.6", "10.9.8.2", "10.9.8.3"]);
    }

    #[test]
    fn what_is_chosen_shares_nothing_with_what_is_there() {
        assert_eq!(Subnet::choose(3, &[]), Some(subnet("10.128.48.0/20")));
        let taken = [subnet("10.128.48.0/24"), subnet("10.128.64.0/18")];
        assert_eq!(Subnet::choose(3, &taken), Some(subnet("10.128.128.0/20")));
        assert_eq!(Subnet::choose(3, &[subnet("10.0.0.0/8")]), None);
        assert_eq!(subnet("10.0.0.0/8").clash(&taken), Some(&taken[0]));
        assert_eq!(subnet("10.128.49.0/24").clash(&taken), None);
    }
}
