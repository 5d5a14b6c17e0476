//! A topology from text, in the words of `ip -batch`: what `sluice replay --topology` and tests read.
//!
//! `link add`, `link set … up|down`, `addr add`, `route add`, `neigh add`; `#` begins a comment. A link is up unless
//! it is set down. `lo` is there from the start, and an address brings its local and its connected route along, as
//! in the kernel.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::ident::MacAddr;
use dataplane::next_hop::Link;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Bond, BondHash, BondMode, Leg, LinkKind, LinkState, MemberStanding, RouteState, Topology, Via};

/// Everything that is wrong with a text, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BatchErrors(pub Vec<BatchError>);

impl fmt::Display for BatchErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            let end = if n == 0 { "" } else { "\n" };
            write!(f, "{end}{error}")?;
        }
        Ok(())
    }
}

/// One line that says nothing sensible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BatchError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong and what was expected.
    pub problem: String,
}

/// Reads a topology.
///
/// # Errors
/// All lines that are wrong, not only the first.
pub fn parse(text: &str) -> Result<Topology, BatchErrors> {
    let mut topology = Topology::default();
    add_loopback(&mut topology);
    let mut errors = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = Words { words: line.split_whitespace().collect(), at: 0 };
        if let Err(problem) = command(&mut words, &mut topology) {
            errors.push(BatchError { line: n + 1, problem });
        }
    }
    if errors.is_empty() { Ok(topology) } else { Err(BatchErrors(errors)) }
}

type Outcome<T = ()> = Result<T, String>;

/// The words of one line and how far they were read.
struct Words<'t> {
    words: Vec<&'t str>,
    at: usize,
}

impl<'t> Words<'t> {
    fn next(&mut self) -> Option<&'t str> {
        let word = self.words.get(self.at).copied();
        self.at += 1;
        word
    }

    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).copied()
    }

    fn skip(&mut self, word: &str) {
        if self.peek() == Some(word) {
            self.at += 1;
        }
    }

    fn expect(&mut self, what: &str) -> Outcome<&'t str> {
        self.next().ok_or_else(|| format!("the line ends where {what} was expected"))
    }

    fn parse<T: std::str::FromStr>(&mut self, what: &str) -> Outcome<T> {
        let word = self.expect(what)?;
        word.parse().map_err(|_| format!("'{word}' is not {what}"))
    }
}

/// Which family `default` means, where no address says it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

fn command(words: &mut Words<'_>, topology: &mut Topology) -> Outcome {
    words.skip("ip");
    let family = match words.peek() {
        Some("-6") => Family::V6,
        _ => Family::V4,
    };
    words.skip("-4");
    words.skip("-6");
    let Some(object) = words.next() else { return Ok(()) };
    let verb = words.expect("'add'")?;
    match (object, verb) {
        ("link" | "l", "add") => link_add(words, topology),
        ("link" | "l", "set") => link_set(words, topology),
        ("address" | "addr" | "a", "add" | "replace") => address_add(words, topology),
        ("route" | "r", "add" | "replace" | "append") => route_add(words, topology, family),
        ("neighbour" | "neighbor" | "neigh" | "n", "add" | "replace") => neighbour_add(words, topology),
        ("link" | "l" | "address" | "addr" | "a" | "route" | "r" | "neighbour" | "neighbor" | "neigh" | "n", verb) => {
            Err(format!("'{object} {verb}' is not understood here; '{object} add' is"))
        }
        _ => Err(format!("'{object}' is not one of link, addr, route, neigh")),
    }
}

fn link_add(words: &mut Words<'_>, topology: &mut Topology) -> Outcome {
    let mut state = LinkState {
        name: String::new(),
        kind: LinkKind::Physical,
        mac: None,
        mtu: 1500,
        up: true,
        master: None,
        standing: MemberStanding::Active,
        queues: 1,
        driver: None,
    };
    let mut parent = None;
    while let Some(word) = words.next() {
        match word {
            "link" => parent = Some(existing(words, topology)?),
            "name" | "dev" => set_name(&mut state, words.expect("a name")?)?,
            "address" => state.mac = Some(words.parse("an Ethernet address such as 02:00:00:00:00:01")?),
            "mtu" => state.mtu = words.parse("a number of bytes")?,
            "numrxqueues" => state.queues = words.parse::<u32>("a number of queues")?.max(1),
            "numtxqueues" => drop(words.parse::<u32>("a number of queues")?),
            "master" => state.master = Some(existing(words, topology)?),
            "type" => state.kind = link_kind(words, parent)?,
            "up" => {}
            name if state.name.is_empty() => set_name(&mut state, name)?,
            other => return Err(format!("'{other}' is not understood in 'link add'")),
        }
    }
    if state.name.is_empty() {
        return Err("the line ends where the link's name was expected".into());
    }
    if topology.link_named(&state.name).is_some() {
        return Err(format!("there is a link '{}' already", state.name));
    }
    let link = Link(topology.links.len() as u32 + 1);
    // A VLAN has its parent's address; others get one that is like no other in this topology.
    let inherited = state.kind.vlan_tag().and_then(|(parent, _)| topology.links.get(&parent)?.mac);
    let [a, b, c, d] = link.0.to_be_bytes();
    state.mac = state.mac.or(inherited).or(Some(MacAddr([2, 0, a, b, c, d])));
    topology.links.insert(link, state);
    Ok(())
}

fn set_name(state: &mut LinkState, name: &str) -> Outcome {
    if name.len() > 15 {
        return Err(format!("'{name}' is longer than the 15 bytes of an interface name"));
    }
    name.clone_into(&mut state.name);
    Ok(())
}

fn link_kind(words: &mut Words<'_>, parent: Option<Link>) -> Outcome<LinkKind> {
    Ok(match words.expect("a type of link")? {
        "veth" => LinkKind::Veth,
        "bond" => LinkKind::Bond(bond(words)?),
        "bridge" => LinkKind::Bridge,
        "vlan" => {
            let parent = parent.ok_or("a VLAN needs 'link PARENT' before 'type vlan'")?;
            vlan(words, parent)?
        }
        other => LinkKind::Other(other.to_owned()),
    })
}

fn vlan(words: &mut Words<'_>, parent: Link) -> Outcome<LinkKind> {
    let (mut tag, mut tpid) = (None, 0x8100);
    while let Some(word) = words.peek() {
        match word {
            "id" => {
                words.skip("id");
                tag = Some(words.parse::<u16>("a VLAN number")?);
            }
            "protocol" => {
                words.skip("protocol");
                tpid = match words.expect("802.1q or 802.1ad")?.to_ascii_lowercase().as_str() {
                    "802.1q" => 0x8100,
                    "802.1ad" => 0x88a8,
                    other => return Err(format!("'{other}' is not 802.1q or 802.1ad")),
                };
            }
            _ => break,
        }
    }
    match tag {
        Some(tag @ 1..=4094) => Ok(LinkKind::Vlan { parent, tag, tpid }),
        Some(tag) => Err(format!("VLAN {tag} is not within 1 to 4094")),
        None => Err("a VLAN needs 'id NUMBER'".into()),
    }
}

/// `[mode NAME] [xmit_hash_policy NAME]`, by the words of `ip link`.
fn bond(words: &mut Words<'_>) -> Outcome<Bond> {
    let mut bond = Bond::default();
    while let Some(word @ ("mode" | "xmit_hash_policy")) = words.peek() {
        words.skip(word);
        match (word, words.expect("a value")?) {
            ("mode", "balance-rr") => bond.mode = BondMode::RoundRobin,
            ("mode", "active-backup") => bond.mode = BondMode::ActiveBackup,
            ("mode", "balance-xor") => bond.mode = BondMode::Xor,
            ("mode", "broadcast") => bond.mode = BondMode::Broadcast,
            ("mode", "802.3ad") => bond.mode = BondMode::Lacp,
            ("mode", "balance-tlb") => bond.mode = BondMode::TransmitLoad,
            ("mode", "balance-alb") => bond.mode = BondMode::AdaptiveLoad,
            ("xmit_hash_policy", "layer2") => bond.keep = BondHash::Neighbour,
            ("xmit_hash_policy", "layer2+3" | "layer3+4" | "encap2+3" | "encap3+4" | "vlan+srcmac") => {
                bond.keep = BondHash::Flow;
            }
            (word, other) => return Err(format!("'{other}' is no {word} of a bond")),
        }
    }
    Ok(bond)
}

/// `link set NAME up|down|master BOND|type bond_slave state active|backup`.
fn link_set(words: &mut Words<'_>, topology: &mut Topology) -> Outcome {
    words.skip("dev");
    let link = existing(words, topology)?;
    let change: Box<dyn FnOnce(&mut LinkState)> = match words.expect("up or down")? {
        "up" => Box::new(|state| state.up = true),
        "down" => Box::new(|state| state.up = false),
        "master" => {
            let master = existing(words, topology)?;
            // A bond's members have its Ethernet address.
            let mac = topology.links.get(&master).and_then(|state| state.mac);
            Box::new(move |state| (state.master, state.mac) = (Some(master), mac.or(state.mac)))
        }
        "type" => {
            words.skip("bond_slave");
            words.skip("state");
            let standing = match words.expect("active or backup")?.to_ascii_lowercase().as_str() {
                "active" => MemberStanding::Active,
                "backup" => MemberStanding::Standby,
                other => return Err(format!("'{other}' is neither active nor backup")),
            };
            Box::new(move |state| state.standing = standing)
        }
        other => return Err(format!("'{other}' is none of up, down, master, type")),
    };
    if let Some(state) = topology.links.get_mut(&link) {
        change(state);
    }
    end(words)
}

fn address_add(words: &mut Words<'_>, topology: &mut Topology) -> Outcome {
    let net = words.expect("an address").and_then(network)?;
    let (mut link, mut with_route) = (None, true);
    while let Some(word) = words.next() {
        match word {
            "dev" => link = Some(existing(words, topology)?),
            "noprefixroute" => with_route = false,
            "nodad" => {}
            "brd" | "broadcast" | "scope" | "label" => drop(words.expect("a value")?),
            other => return Err(format!("'{other}' is not understood in 'addr add'")),
        }
    }
    let link = link.ok_or("'dev INTERFACE' is missing")?;
    if !topology.addresses.insert((link, net)) {
        return Err(format!("{net} is on this interface already"));
    }
    topology.routes.push(local_route(IpNet::from(net.addr())));
    if with_route && net.prefix_len() < net.max_prefix_len() {
        let source = net.addr().is_ipv4().then_some(net.addr());
        topology.routes.push(RouteState { prefix: net.trunc(), via: Via::Link(link), metric: 0, source, mtu: None });
    }
    Ok(())
}

fn route_add(words: &mut Words<'_>, topology: &mut Topology, family: Family) -> Outcome {
    let mut kind = None;
    if let Some(word @ ("unicast" | "local" | "blackhole" | "unreachable" | "prohibit")) = words.peek() {
        kind = Some(word);
        words.skip(word);
    }
    let prefix = words.expect("a prefix or 'default'")?;
    let mut legs = vec![PartialLeg::default()];
    let mut route = RouteState { prefix: unspecified(family), via: Via::Blackhole, metric: 0, source: None, mtu: None };
    while let Some(word) = words.next() {
        match word {
            "nexthop" => legs.push(PartialLeg::default()),
            "via" => {
                words.skip("inet");
                words.skip("inet6");
                let gateway = words.parse("an address")?;
                legs.last_mut().ok_or("no way to put a gateway in")?.gateway = Some(gateway);
            }
            "dev" => {
                let link = existing(words, topology)?;
                legs.last_mut().ok_or("no way to put an interface in")?.link = Some(link);
            }
            "weight" => drop(words.parse::<u8>("a weight")?),
            "metric" | "priority" | "preference" => route.metric = words.parse("a metric")?,
            "src" => route.source = Some(words.parse("an address")?),
            "mtu" => route.mtu = Some(words.parse("a number of bytes")?),
            "onlink" => {}
            "proto" | "scope" => drop(words.expect("a value")?),
            other => return Err(format!("'{other}' is not understood in 'route add'")),
        }
    }
    let family = legs.iter().find_map(|leg| leg.gateway).map_or(family, family_of);
    route.prefix = if prefix == "default" { unspecified(family) } else { network(prefix)?.trunc() };
    route.via = match kind {
        Some("local") => Via::Local,
        Some("blackhole" | "unreachable" | "prohibit") => Via::Blackhole,
        _ => way(&legs, topology)?,
    };
    topology.routes.push(route);
    Ok(())
}

/// A way as far as the line says it.
#[derive(Clone, Copy, Default, PartialEq)]
struct PartialLeg {
    gateway: Option<IpAddr>,
    link: Option<Link>,
}

fn way(legs: &[PartialLeg], topology: &Topology) -> Outcome<Via> {
    // The first stands for what comes before any 'nexthop'.
    let said = legs.iter().filter(|leg| **leg != PartialLeg::default());
    let legs = said.map(|leg| leg.complete(topology)).collect::<Outcome<Vec<Leg>>>()?;
    match legs[..] {
        [] => Err("a route needs 'via GATEWAY' or 'dev INTERFACE'".into()),
        [Leg { gateway: Some(gateway), link }] => Ok(Via::Gateway(gateway, link)),
        [Leg { gateway: None, link }] => Ok(Via::Link(link)),
        _ => Ok(Via::Multipath(legs)),
    }
}

impl PartialLeg {
    fn complete(self, topology: &Topology) -> Outcome<Leg> {
        let on = |gateway| topology.addresses.iter().find(|(_, net)| net.contains(&gateway)).map(|(link, _)| *link);
        match (self.link, self.gateway) {
            (Some(link), gateway) => Ok(Leg { gateway, link }),
            (None, Some(gateway)) => match on(gateway) {
                Some(link) => Ok(Leg { gateway: Some(gateway), link }),
                None => Err(format!("no interface has an address beside gateway {gateway}; name it by 'dev'")),
            },
            (None, None) => Err("'nexthop' needs 'via' or 'dev'".into()),
        }
    }
}

fn neighbour_add(words: &mut Words<'_>, topology: &mut Topology) -> Outcome {
    words.skip("to");
    let address: IpAddr = words.parse("an address")?;
    let (mut link, mut mac, mut usable) = (None, None, true);
    while let Some(word) = words.next() {
        match word {
            "lladdr" => mac = Some(words.parse::<MacAddr>("an Ethernet address such as 02:00:00:00:00:01")?),
            "dev" => link = Some(existing(words, topology)?),
            "nud" => usable = !matches!(words.expect("a state")?, "failed" | "incomplete" | "none"),
            "router" => {}
            other => return Err(format!("'{other}' is not understood in 'neigh add'")),
        }
    }
    let link = link.ok_or("'dev INTERFACE' is missing")?;
    if usable {
        let mac = mac.ok_or("'lladdr ADDRESS' is missing")?;
        topology.neighbours.insert((link, address), mac);
    }
    Ok(())
}

fn add_loopback(topology: &mut Topology) {
    let lo = Link(1);
    let state = LinkState {
        name: "lo".to_owned(),
        kind: LinkKind::Loopback,
        mac: None,
        mtu: 65536,
        up: true,
        master: None,
        standing: MemberStanding::Active,
        queues: 1,
        driver: None,
    };
    topology.links.insert(lo, state);
    let (v4, v6) = (Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8), Ipv6Net::from(Ipv6Addr::LOCALHOST));
    topology.addresses.extend([(lo, IpNet::V4(v4)), (lo, IpNet::V6(v6))]);
    topology.routes.extend([local_route(IpNet::V4(v4.trunc())), local_route(IpNet::V6(v6))]);
}

fn local_route(prefix: IpNet) -> RouteState {
    RouteState { prefix, via: Via::Local, metric: 0, source: None, mtu: None }
}

fn existing(words: &mut Words<'_>, topology: &Topology) -> Outcome<Link> {
    let name = words.expect("an interface")?;
    let found = topology.link_named(name).map(|(link, _)| link);
    found.ok_or_else(|| format!("there is no link '{name}' yet; a 'link add {name}' has to come before"))
}

fn network(word: &str) -> Outcome<IpNet> {
    let parsed = word.parse::<IpNet>().ok().or_else(|| word.parse::<IpAddr>().ok().map(IpNet::from));
    parsed.ok_or_else(|| format!("'{word}' is not an address or prefix such as 10.1.0.1/24"))
}

fn unspecified(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(Ipv4Net::default()),
        Family::V6 => IpNet::V6(Ipv6Net::default()),
    }
}

fn family_of(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

fn end(words: &mut Words<'_>) -> Outcome {
    words.next().map_or(Ok(()), |extra| Err(format!("'{extra}' is too much")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine() {
        let topology = parse(
            "# the lab\nlink add eth0 address 02:00:00:00:01:01 mtu 9000\nlink add eth1 type veth # back\n\
             addr add 10.1.0.1/24 dev eth0\naddr add 2001:db8::1/64 dev eth0 nodad\n\
             route add default via 10.1.0.2\n-6 route add default dev eth1 metric 1024\n\
             route add blackhole 192.0.2.0/24\nneigh add 10.1.0.2 lladdr 02:00:00:00:01:02 dev eth0\n\
             neigh add 10.1.0.3 dev eth0 nud failed\nlink set eth1 down\n",
        )
        .unwrap();
        let (eth0, state) = topology.link_named("eth0").unwrap();
        assert_eq!((state.mtu, state.mac), (9000, Some(MacAddr([2, 0, 0, 0, 1, 1]))));
        let (eth1, state) = topology.link_named("eth1").unwrap();
        assert_eq!((&state.kind, state.up), (&LinkKind::Veth, false));
        let expect = |prefix: &str, via: Via, metric: u32| {
            let prefix: IpNet = prefix.parse().unwrap();
            assert!(
                topology.routes.iter().any(|r| r.prefix == prefix && r.via == via && r.metric == metric),
                "{prefix}"
            );
        };
        expect("0.0.0.0/0", Via::Gateway("10.1.0.2".parse().unwrap(), eth0), 0);
        expect("::/0", Via::Link(eth1), 1024);
        expect("192.0.2.0/24", Via::Blackhole, 0);
        expect("10.1.0.0/24", Via::Link(eth0), 0);
        expect("10.1.0.1/32", Via::Local, 0);
        expect("2001:db8::/64", Via::Link(eth0), 0);
        assert_eq!(topology.neighbours.len(), 1);
    }

    #[test]
    fn several_ways_of_one_route() {
        let topology = parse(
            "link add eth0\naddr add 10.1.0.1/24 dev eth0\n\
             route add default nexthop via 10.1.0.2 dev eth0 weight 1 nexthop via 10.1.0.3",
        )
        .unwrap();
        let Via::Multipath(legs) = &topology.routes.last().unwrap().via else { panic!("not multipath") };
        assert_eq!(
            legs.iter().map(|leg| leg.gateway.unwrap().to_string()).collect::<Vec<_>>(),
            ["10.1.0.2", "10.1.0.3"]
        );
    }

    #[test]
    fn every_wrong_line_is_told_with_its_number() {
        let text = "link add\nlonk add eth0\nlink add eth0 mtu many\nlink add eth0\nlink add eth0\n\
                    addr add 10.1.0.300/24 dev eth0\naddr add 10.1.0.1/24\naddr add 10.1.0.1/24 dev eth9\n\
                    route add 10.0.0.0/8\nroute add default via 10.9.9.9\nneigh add 10.1.0.2 dev eth0\n\
                    link add link eth0 name v type vlan id 5000\nlink del eth0\nlink add this-name-is-too-long\n";
        let errors = parse(text).unwrap_err();
        let lines: Vec<_> = errors.0.iter().map(|e| e.line).collect();
        assert_eq!(lines, [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
        let told = errors.to_string();
        assert!(told.contains("line 5: there is a link 'eth0' already"), "{told}");
        assert!(told.contains("line 8: there is no link 'eth9' yet"), "{told}");
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_an_error_or_a_topology_but_never_a_panic(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "link", "add", "set", "eth0", "addr", "dev", "route", "default", "via", "nexthop", "neigh", "lladdr",
                    "10.1.0.1/24", "10.1.0.1", "::1", "fe80::1/64", "02:00:00:00:00:01", "type", "vlan", "id", "7", "\n",
                    "4294967296", "-6", "#", "é", "\u{0}", "mtu", "name", "protocol",
                ]),
                0..60,
            ),
            noise in ".{0,80}",
        ) {
            let _ = parse(&words.join(" "));
            let _ = parse(&noise);
        }
    }
}
