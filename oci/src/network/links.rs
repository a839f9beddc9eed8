//! The containers' links, and the routes over them.
//!
//! Each container has a pair of links to the node and no link to any other container: there is no bridge. (On a bridge
//! containers would reach what their neighbours do not publish; with ports isolated against that, a kernel whose
//! `br_netfilter` is on, as Docker and Kubernetes switch it on, loses what one container sends another by a published
//! port: it takes the changed destination for one to bridge to.)

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};

use super::error::Error;
use super::namespace::Namespace;
use super::netlink::Socket;
use super::subnet::Subnet;

/// What a container calls its link.
const INSIDE: &str = "eth0";
const LOOPBACK: u32 = 1;
const MTU: u32 = 1500;

const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
const CHANGE: u16 = NLM_F_ACK;

fn link(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes = attributes;
    link
}

fn up(mut link: LinkMessage) -> Message {
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    Message::NewLink(link)
}

fn address(index: u32, address: Ipv4Addr) -> Message {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(IpAddr::V4(address)), AddressAttribute::Address(IpAddr::V4(address))];
    Message::NewAddress(message)
}

/// Brings the namespace's own loopback up.
pub(super) fn loopback(inside: &mut Socket) -> Result<(), Error> {
    let requests = vec![(CHANGE, up(link(LOOPBACK, Vec::new())))];
    inside.request(requests).map_err(|e| Error::step("bring a new loopback up")(e.source))
}

/// A pair of links: `name` here, the other in the namespace, ready to be used.
pub(super) fn connect(
    host: &mut Socket,
    name: &str,
    namespace: &mut Namespace,
    gateway: Ipv4Addr,
    own: Ipv4Addr,
    mtu: u32,
) -> Result<(), Error> {
    let mac = |first: u8| {
        let [a, b, c, d] = own.octets();
        // Locally administered. The same address has the same one, so that nobody's memory of it is wrong.
        LinkAttribute::Address(vec![first, 0xc0, a, b, c, d])
    };
    let peer = link(
        0,
        vec![
            LinkAttribute::IfName(INSIDE.into()),
            LinkAttribute::NetNsFd(namespace.fd().as_raw_fd()),
            LinkAttribute::Mtu(mtu),
            mac(0x02),
        ],
    );
    let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))];
    let pair = link(
        0,
        vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Mtu(mtu),
            mac(0x06),
            LinkAttribute::LinkInfo(info),
        ],
    );
    host.request(vec![(NEW, up(pair))]).map_err(|e| {
        Error::of(format!("make the link {name}"), "virtual Ethernet links", "veth")(e.source)
    })?;

    // Whatever the kernel puts into a new namespace by itself came before it.
    let index = find(&mut namespace.inside, INSIDE)?;
    let requests = vec![
        (NEW, address(index, own)),
        (CHANGE, up(link(index, Vec::new()))),
        (NEW, route(index, Some(gateway), None)),
        (NEW, route(index, None, Some(gateway))),
    ];
    namespace.inside.request(requests).map_err(|refused| {
        let step = ["give it its address", "bring its link up"].get(refused.at).unwrap_or(&"lay its routes");
        Error::step(format!("{step} in the namespace of {own}"))(refused.source)
    })?;

    let index = find(host, name)?;
    // Every link has the gateway's address: whichever one a packet leaves by, it leaves in that name.
    let requests = vec![(NEW, address(index, gateway)), (NEW, route(index, Some(own), None))];
    host.request(requests).map_err(|refused| {
        Error::step(format!("lay the route to {own} over the link {name}"))(refused.source)
    })
}

/// To one address on the link itself, or (none) to all others.
fn route(index: u32, to: Option<Ipv4Addr>, gateway: Option<Ipv4Addr>) -> Message {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: if to.is_some() { 32 } else { 0 },
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    route.attributes = vec![RouteAttribute::Oif(index)];
    route.attributes.extend(to.map(|to| RouteAttribute::Destination(RouteAddress::Inet(to))));
    route.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(RouteAddress::Inet(gateway))));
    Message::NewRoute(route)
}

/// Removes a link and with it its other end. One that is gone is no error.
pub(super) fn remove(host: &mut Socket, name: &str) -> Result<(), Error> {
    let gone = link(0, vec![LinkAttribute::IfName(name.into())]);
    match host.request(vec![(CHANGE, Message::DelLink(gone))]).map_err(|refused| refused.source) {
        Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
            Err(Error::step(format!("remove the link {name}"))(error))
        }
        _ => Ok(()),
    }
}

/// The names of all links.
pub(super) fn names(host: &mut Socket) -> Result<Vec<String>, Error> {
    Ok(all(host)?.into_iter().filter_map(|link| name(&link)).collect())
}

/// What this machine has IPv4 routes to, but for the default one, and the MTU of the link which that takes.
pub(super) fn surroundings(host: &mut Socket) -> Result<(Vec<Subnet>, u32), Error> {
    let mut asked = RouteMessage::default();
    asked.header.address_family = AddressFamily::Inet;
    let routes = host.dump(Message::GetRoute(asked)).map_err(Error::step("list this machine's routes"))?;
    let (mut taken, mut way_out) = (Vec::new(), None);
    for message in routes {
        let Message::NewRoute(route) = message else { continue };
        let through = route.attributes.iter().find_map(|a| match a {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
        let to = route.attributes.iter().find_map(|a| match a {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(*to),
            _ => None,
        });
        match to {
            None => way_out = way_out.or(through),
            Some(to) => taken.push(Subnet::of(to, route.header.destination_prefix_length)),
        }
    }
    let mtu = match way_out {
        None => MTU,
        Some(index) => all(host)?
            .into_iter()
            .find(|link| link.header.index == index)
            .and_then(|link| {
                link.attributes.iter().find_map(|a| match a {
                    LinkAttribute::Mtu(mtu) => Some(*mtu),
                    _ => None,
                })
            })
            .unwrap_or(MTU),
    };
    Ok((taken, mtu))
}

fn all(host: &mut Socket) -> Result<Vec<LinkMessage>, Error> {
    let links = host
        .dump(Message::GetLink(LinkMessage::default()))
        .map_err(Error::step("list this machine's links"))?;
    Ok(links
        .into_iter()
        .filter_map(|message| match message {
            Message::NewLink(link) => Some(link),
            _ => None,
        })
        .collect())
}

/// The index of the link with this name in the socket's namespace.
fn find(socket: &mut Socket, wanted: &str) -> Result<u32, Error> {
    let found = all(socket)?.into_iter().find(|link| name(link).as_deref() == Some(wanted));
    let gone = || Error::step(format!("find the link {wanted}"))(io::ErrorKind::NotFound.into());
    found.map(|link| link.header.index).ok_or_else(gone)
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}
