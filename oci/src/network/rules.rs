//! The node's table of packet rules: what is published, what may go out, and what must not pass.
//!
//! ```text
//! table ip NAME {
//!   map ports { type inet_service : ipv4_addr . inet_service }          the node's port → container and its port
//!   chain publish  { nat, prerouting }   to this node, tcp or udp → dnat to ports[its port]
//!   chain local    { nat, output }       the same for the node's own programs, 127.0.0.1 included
//!   chain hide     { nat, postrouting }  from a container, and from 127.0.0.0/8 to one → the way out's address, so that
//!                                        answers find back
//!   chain guard    { filter, prerouting, before all else }  from a container: a forged sender, or to 127.0.0.0/8 → drop
//!   chain closed   { filter, forward }   to a container, neither published nor an answer → drop
//! }
//! ```
//! The rules do not change while containers come and go: only the map's elements do. Written with
//! `netlink-packet-netfilter`, which knows tables, chains, sets and most expressions; the four that it does not know
//! (`fib`, `ct`, `nat`, `masq`) are given as plain attributes, as `nf_tables.h` numbers them.

use std::net::Ipv4Addr;

use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, Immediate, InetHookNumber,
    ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register, RuleAttribute,
    RuleMessage, SetAttribute, SetElementAttribute, SetElementList, SetElementMessage, SetFlags, SetMessage,
    TableAttribute, TableMessage, Verdict, VerdictAttribute,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};

use super::error::Error;
use super::netlink::{Refused, Socket};
use super::subnet::Subnet;

const MODULES: &str = "nf_tables nft_chain_nat nft_nat nft_masq nft_ct nft_fib_ipv4";
const FEATURE: &str = "nftables with NAT";
const MAP: &str = "ports";

/// Where packets come by, in the order of `nf_inet_hooks`, with the priorities that nft gives them by name.
const PUBLISH: (&str, &str, InetHookNumber, i32) = ("publish", "nat", InetHookNumber::PreRouting, -100);
const LOCAL: (&str, &str, InetHookNumber, i32) = ("local", "nat", InetHookNumber::LocalOut, -100);
const HIDE: (&str, &str, InetHookNumber, i32) = ("hide", "nat", InetHookNumber::PostRouting, 100);
const GUARD: (&str, &str, InetHookNumber, i32) = ("guard", "filter", InetHookNumber::PreRouting, -300);
const CLOSED: (&str, &str, InetHookNumber, i32) = ("closed", "filter", InetHookNumber::Forward, 0);

/// A port of the node's that leads to a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) port: u16,
    pub(super) to: Ipv4Addr,
    pub(super) inside: u16,
}

/// Puts the whole table in place of what there is, at once: there is no moment without rules. `links`: how the names of
/// all links to containers begin.
pub(super) fn replace(
    rules: &mut Socket,
    table: &str,
    links: &str,
    subnet: &Subnet,
    ways: &[Way],
) -> Result<(), Error> {
    let named = || TableMessage { attributes: vec![TableAttribute::Name(table.into())] };
    let mut batch = vec![
        (NLM_F_CREATE, NfTablesMessage::NewTable(named())),
        (NLM_F_ACK, NfTablesMessage::DeleteTable(named())),
        (NLM_F_CREATE, NfTablesMessage::NewTable(named())),
        (NLM_F_CREATE | NLM_F_EXCL, map(table)),
    ];
    batch.extend([PUBLISH, LOCAL, HIDE, GUARD, CLOSED].map(|spec| (NLM_F_CREATE, chain(table, spec))));
    let mut add = |(chain, ..): (&str, &str, InetHookNumber, i32), expressions: Vec<Expressions>| {
        batch.push((NLM_F_CREATE | NLM_F_APPEND, rule(table, chain, expressions)));
    };
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
        add(PUBLISH, publish(protocol as u8));
        add(LOCAL, publish(protocol as u8));
    }
    let from = |equal, subnet: &Subnet| network(12, subnet, equal);
    let to = |subnet: &Subnet| network(16, subnet, Operator::Equal);
    let loopback = Subnet::of(Ipv4Addr::LOCALHOST, 8);
    // Not what the node sends in its own name.
    let outgoing = joined([
        from(Operator::Equal, subnet),
        vec![load(12), compare(Operator::NotEqual, subnet.gateway().octets()), other("masq", &[])],
    ]);
    add(HIDE, outgoing);
    add(
        HIDE,
        joined([linked(MetaKey::Oifname, links), from(Operator::Equal, &loopback), vec![other("masq", &[])]]),
    );
    add(GUARD, joined([linked(MetaKey::Iifname, links), from(Operator::NotEqual, subnet), vec![drop_it()]]));
    add(GUARD, joined([linked(MetaKey::Iifname, links), to(&loopback), vec![drop_it()]]));
    add(
        CLOSED,
        joined([
            linked(MetaKey::Oifname, links),
            conntrack(CT_STATUS, IPS_DST_NAT),
            conntrack(CT_STATE, STATE_ESTABLISHED | STATE_RELATED),
            vec![drop_it()],
        ]),
    );
    if !ways.is_empty() {
        batch.push((NLM_F_CREATE, NfTablesMessage::NewSetElement(elements(table, ways, true))));
    }
    commit(rules, batch).map_err(|refused| {
        Error::of(format!("write the table {table} of packet rules"), FEATURE, MODULES)(refused.source)
    })
}

/// Opens ways beside those that there are.
pub(super) fn open(rules: &mut Socket, table: &str, ways: &[Way]) -> Result<(), Error> {
    if ways.is_empty() {
        return Ok(());
    }
    let message = NfTablesMessage::NewSetElement(elements(table, ways, true));
    commit(rules, vec![(NLM_F_CREATE | NLM_F_EXCL, message)])
        .map_err(|refused| Error::step(format!("publish ports in the table {table}"))(refused.source))
}

/// Closes ways; those that are not open are no error.
pub(super) fn close(rules: &mut Socket, table: &str, ways: &[Way]) -> Result<(), Error> {
    for way in ways {
        // One at a time: a batch is refused as a whole for one that is gone.
        let message = NfTablesMessage::DeleteSetElement(elements(table, &[*way], false));
        match commit(rules, vec![(NLM_F_ACK, message)]) {
            Err(refused) if refused.source.raw_os_error() != Some(libc::ENOENT) => {
                return Err(Error::step(format!("take port {} out of the table {table}", way.port))(
                    refused.source,
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Removes the table with all that is in it. One that is not there is no error.
pub(super) fn remove(rules: &mut Socket, table: &str) -> Result<(), Error> {
    let gone = TableMessage { attributes: vec![TableAttribute::Name(table.into())] };
    match commit(rules, vec![(NLM_F_ACK, NfTablesMessage::DeleteTable(gone))]) {
        Err(refused) if refused.source.raw_os_error() != Some(libc::ENOENT) => {
            Err(Error::step(format!("remove the table {table} of packet rules"))(refused.source))
        }
        _ => Ok(()),
    }
}

fn commit(rules: &mut Socket, batch: Vec<(u16, NfTablesMessage)>) -> Result<(), Refused> {
    const NFTABLES: u16 = 10;
    let control = |message| {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
        (0, NetfilterMessage::new(header, message))
    };
    let mut requests = vec![control(ControlMessage::BatchBegin)];
    requests.extend(batch.into_iter().map(|(flags, message)| {
        (flags, NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0), message))
    }));
    requests.push(control(ControlMessage::BatchEnd));
    rules.request(requests)
}

fn map(table: &str) -> NfTablesMessage {
    // Only for those who list it: inet_service; ipv4_addr and inet_service side by side.
    const KEY: u32 = 13;
    const DATA: u32 = 7 << 6 | 13;
    NfTablesMessage::NewSet(SetMessage {
        attributes: vec![
            SetAttribute::Table(table.into()),
            SetAttribute::Name(MAP.into()),
            SetAttribute::Id(1),
            SetAttribute::Flags(SetFlags::Map),
            SetAttribute::KeyType(KEY),
            SetAttribute::KeyLen(2),
            SetAttribute::DataType(DATA),
            SetAttribute::DataLen(8),
        ],
    })
}

fn chain(table: &str, (name, kind, hook, priority): (&str, &str, InetHookNumber, i32)) -> NfTablesMessage {
    NfTablesMessage::NewChain(ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.into()),
            ChainAttribute::Name(name.into()),
            ChainAttribute::Hook(vec![Hook::Number(hook.into()), Hook::Priority(priority as u32)]),
            ChainAttribute::Type(kind.into()),
        ],
    })
}

fn rule(table: &str, chain: &str, expressions: Vec<Expressions>) -> NfTablesMessage {
    NfTablesMessage::NewRule(RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.into()),
            RuleAttribute::Chain(chain.into()),
            RuleAttribute::Expressions(expressions.into_iter().map(ListAttribute::from).collect()),
        ],
    })
}

fn elements(table: &str, ways: &[Way], with_data: bool) -> SetElementMessage {
    let element = |way: &Way| {
        let key = DataAttribute::Value(way.port.to_be_bytes().to_vec());
        let mut attributes = vec![SetElementAttribute::Key(key)];
        if with_data {
            let [high, low] = way.inside.to_be_bytes();
            let [a, b, c, d] = way.to.octets();
            let data = vec![a, b, c, d, high, low, 0, 0];
            attributes.push(SetElementAttribute::Data(DataAttribute::Value(data)));
        }
        ListAttribute::Element(attributes)
    };
    SetElementMessage {
        attributes: vec![
            SetElementList::Table(table.into()),
            SetElementList::Set(MAP.into()),
            SetElementList::Elements(ways.iter().map(element).collect()),
        ],
    }
}

/// To one of the node's own addresses, in this protocol, to a port of the map: there it goes.
fn publish(protocol: u8) -> Vec<Expressions> {
    const FIB: [(u16, u32); 3] = [(1, 1), (2, 3), (3, 2)]; // dreg 1, result: address type, flags: daddr
    const LOCAL: u32 = libc::RTN_LOCAL as u32;
    const DNAT: [(u16, u32); 4] = [(1, 1), (2, 2), (3, 1), (5, 9)]; // destination, IPv4, address in reg 1, port after it
    vec![
        other("fib", &FIB),
        compare(Operator::Equal, LOCAL.to_ne_bytes()),
        Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(MetaKey::L4Proto)]),
        compare(Operator::Equal, [protocol]),
        Expressions::Payload(vec![
            Payload::DestinationRegister(Register::Reg1),
            Payload::Base(2),
            Payload::Offset(2),
            Payload::Len(2),
        ]),
        Expressions::Lookup(vec![
            Lookup::Set(MAP.into()),
            Lookup::SourceRegister(Register::Reg1),
            Lookup::DestinationRegister(Register::Reg1),
            Lookup::SetId(1),
        ]),
        other("nat", &DNAT),
    ]
}

/// Four bytes of the IP header.
fn load(offset: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(1),
        Payload::Offset(offset),
        Payload::Len(4),
    ])
}

/// An address of the IP header lies in the subnet, or does not.
fn network(offset: u32, subnet: &Subnet, operator: Operator) -> Vec<Expressions> {
    vec![load(offset), masked(subnet.mask().octets()), compare(operator, subnet.base().octets())]
}

fn masked(mask: [u8; 4]) -> Expressions {
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(4),
        Bitwise::Mask(DataAttribute::Value(mask.to_vec())),
        Bitwise::Xor(DataAttribute::Value(vec![0; 4])),
    ])
}

/// As many bytes as there are in `data`.
fn compare(operator: Operator, data: impl AsRef<[u8]>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(operator),
        Cmp::Data(DataAttribute::Value(data.as_ref().to_vec())),
    ])
}

fn linked(which: MetaKey, prefix: &str) -> Vec<Expressions> {
    let meta = vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(which)];
    vec![Expressions::Meta(meta), compare(Operator::Equal, prefix)]
}

const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const STATE_ESTABLISHED: u32 = 1 << 1;
const STATE_RELATED: u32 = 1 << 2;
const IPS_DST_NAT: u32 = 1 << 5;

/// None of these bits is set in what is known of the connection.
fn conntrack(key: u32, bits: u32) -> Vec<Expressions> {
    vec![other("ct", &[(1, 1), (2, key)]), masked(bits.to_ne_bytes()), compare(Operator::Equal, [0; 4])]
}

fn drop_it() -> Expressions {
    const DROP: Verdict = Verdict::Other(0);
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(DROP)])),
    ])
}

/// An expression whose attributes are big-endian words.
fn other(name: &str, attributes: &[(u16, u32)]) -> Expressions {
    let word = |(kind, value): &(u16, u32)| DefaultNla::new(*kind, value.to_be_bytes().to_vec());
    Expressions::Other { expression_type: name.into(), attributes: attributes.iter().map(word).collect() }
}

fn joined<const N: usize>(parts: [Vec<Expressions>; N]) -> Vec<Expressions> {
    parts.into_iter().flatten().collect()
}
