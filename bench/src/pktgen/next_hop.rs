//! The way to a destination as the kernel knows it: the next hop's MAC, and which address packets come from.
//!
//! Asked of ip(8), which every machine with an interface has, once before the first packet.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::ident::MacAddr;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::PktgenError;
use crate::link::{self, Place};

/// How packets reach a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextHop {
    pub(crate) mac: MacAddr,
    /// The interface's address that the kernel would send from.
    pub(crate) source: IpAddr,
}

#[derive(Deserialize)]
struct Route {
    gateway: Option<IpAddr>,
    prefsrc: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Neighbour {
    lladdr: Option<String>,
}

/// The longest that a neighbour may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// "Discard", RFC 863: what is sent there is meant for nobody.
const DISCARD: u16 = 9;

/// Asks the kernel for the way from a place to a destination; with `mac` given, only for the source address.
pub(crate) fn find(place: &Place, to: IpAddr, mac: Option<MacAddr>) -> Result<NextHop, PktgenError> {
    let unknown = |why: String| PktgenError::NoNextHop { place: place.to_string(), to, why };
    let routes: Vec<Route> =
        ask(place, to, &["route", "get", &to.to_string(), "oif", &place.interface]).map_err(unknown)?;
    let route = routes.first().ok_or_else(|| unknown("no route".into()))?;
    let source = route.prefsrc.ok_or_else(|| unknown("the interface has no address".into()))?;
    if let Some(mac) = mac {
        return Ok(NextHop { mac, source });
    }
    let hop = route.gateway.unwrap_or(to);
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(mac) = neighbour(place, hop).map_err(unknown)? {
            return Ok(NextHop { mac, source });
        }
        if Instant::now() > give_up {
            return Err(unknown(format!("{hop} answers no ARP or ND")));
        }
        link::within(place.namespace.as_deref(), || poke(hop).map_err(|e| unknown(e.to_string())))?;
        std::thread::sleep(PAUSE);
    }
}

fn neighbour(place: &Place, hop: IpAddr) -> Result<Option<MacAddr>, String> {
    let found: Vec<Neighbour> = ask(place, hop, &["neigh", "show", "to", &hop.to_string(), "dev", &place.interface])?;
    let mac = found.into_iter().find_map(|n| n.lladdr);
    mac.map(|text| text.parse().map_err(|_| format!("{hop} has no Ethernet address but {text}"))).transpose()
}

/// Sends a datagram, for the kernel to look for the neighbour.
fn poke(hop: IpAddr) -> io::Result<()> {
    let any: IpAddr = if hop.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    UdpSocket::bind((any, 0))?.send_to(&[], (hop, DISCARD)).map(|_| ())
}

fn ask<T: DeserializeOwned>(place: &Place, to: IpAddr, words: &[&str]) -> Result<T, String> {
    let mut command = Command::new("ip");
    if let Some(namespace) = &place.namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-json", if to.is_ipv4() { "-4" } else { "-6" }]).args(words);
    let output = command.output().map_err(|e| format!("cannot run ip(8): {e}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    // Nothing found is nothing printed.
    let text = if output.stdout.trim_ascii().is_empty() { b"[]".as_slice() } else { &output.stdout };
    serde_json::from_slice(text).map_err(|e| format!("ip(8) answers what it should not: {e}"))
}
