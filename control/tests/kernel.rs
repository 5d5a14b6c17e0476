//! The kernel side on a real kernel: each test in a network namespace of its own, with a peer in another.
//!
//! Needs root, and fails without; run by `cargo nextest run -p sluice --test kernel`.

// What fails here fails the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use control::compile::kernel_port::{DATAPLANE_END, DATAPLANE_MAC, DATAPLANE_V4, DATAPLANE_V6, KERNEL_END};
use control::config::{AddressFlags, Broadcast, Place, StaticAddress};
use control::kernel::{
    AddedAddress, Addresses, KernelPortError, Loopback, Neighbours, Netlink, Outcome, Watcher, announce,
    create_kernel_port, remove_kernel_port, set_loopback, set_queues,
};
use control::topology::{LinkKind, Topology, Via};
use dataplane::ident::MacAddr;
use dataplane::next_hop::Link;
use nix::sched::{CloneFlags, unshare};

/// A namespace of a neighbour, gone with the value. The test's own thread is in a nameless one.
struct Peer {
    namespace: String,
}

impl Peer {
    /// `eth0` here (addresses `10.1.0.1/24` and `2001:db8::1/64`) on a wire to `eth0` there (`.2` and `::2`).
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let peer = Self { namespace: format!("sc-{}", std::process::id()) };
        run(&["ip", "netns", "add", &peer.namespace]);
        enter_namespace();
        run(&["ip", "link", "set", "lo", "up"]);
        run(&["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &peer.namespace]);
        run(&["ip", "addr", "add", "10.1.0.1/24", "dev", "eth0"]);
        run(&["ip", "addr", "add", "2001:db8::1/64", "dev", "eth0", "nodad"]);
        run(&["ip", "link", "set", "eth0", "up"]);
        peer.ip(&["addr", "add", "10.1.0.2/24", "dev", "eth0"]);
        peer.ip(&["addr", "add", "2001:db8::2/64", "dev", "eth0", "nodad"]);
        peer.ip(&["link", "set", "eth0", "up"]);
        peer
    }

    fn ip(&self, words: &[&str]) {
        run(&[&["ip", "-n", &self.namespace], words].concat());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

fn enter_namespace() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root (CAP_SYS_ADMIN)");
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().expect("the command is installed");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a test in the runtime that the director has: one thread, which stays in its namespace.
fn on_runtime<F: Future>(test: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

async fn until(watcher: &mut Watcher, what: &str, is_so: impl Fn(&Topology) -> bool) {
    let seen = async {
        while !is_so(&watcher.topology()) {
            watcher.changed().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(5), seen).await;
    assert!(in_time.is_ok(), "{what} was not seen; there is {:#?}", watcher.topology());
}

fn link(topology: &Topology, name: &str) -> Link {
    topology.link_named(name).unwrap_or_else(|| panic!("no {name}")).0
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(net: &str) -> StaticAddress {
    StaticAddress {
        address: net.parse().unwrap(),
        dev: "eth0".into(),
        broadcast: Broadcast::Unset,
        scope: 0,
        label: None,
        peer: None,
        preferred_lifetime: None,
        flags: AddressFlags::default(),
        place: Place { file: "test.conf".into(), line: 1, column: 1 },
    }
}

#[test]
fn root_the_watcher_reads_what_is_there() {
    let _peer = Peer::new();
    run(&["ip", "route", "add", "default", "via", "10.1.0.2"]);
    run(&["ip", "route", "add", "blackhole", "192.0.2.0/24"]);
    run(&["ip", "neigh", "add", "10.1.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0"]);
    run(&["ip", "link", "add", "br0", "type", "bridge"]);
    run(&[
        "ip",
        "link",
        "add",
        "two",
        "numrxqueues",
        "2",
        "numtxqueues",
        "2",
        "type",
        "veth",
        "peer",
        "name",
        "towards",
    ]);
    on_runtime(async {
        let topology = Watcher::start().await.unwrap().topology();
        let (eth0, state) = topology.link_named("eth0").unwrap();
        assert_eq!((&state.kind, state.mtu, state.driver.as_deref()), (&LinkKind::Veth, 1500, Some("veth")));
        assert!(state.mac.is_some());
        assert_eq!(topology.link_named("lo").unwrap().1.kind, LinkKind::Loopback);
        assert_eq!(topology.link_named("br0").unwrap().1.kind, LinkKind::Bridge);
        assert_eq!(topology.link_named("two").unwrap().1.queues, 2);
        assert!(topology.addresses.contains(&(eth0, "10.1.0.1/24".parse().unwrap())));
        assert!(topology.addresses.contains(&(eth0, "2001:db8::1/64".parse().unwrap())));
        assert_eq!(topology.neighbours.get(&(eth0, ip("10.1.0.2"))), Some(&MacAddr([2, 0, 0, 0, 0, 2])));
        let via = |prefix: &str| {
            let prefix = prefix.parse().unwrap();
            topology.routes.iter().find(|route| route.prefix == prefix).map(|route| route.via.clone())
        };
        assert_eq!(via("0.0.0.0/0"), Some(Via::Gateway(ip("10.1.0.2"), eth0)));
        assert_eq!(via("10.1.0.0/24"), Some(Via::Link(eth0)));
        assert_eq!(via("10.1.0.1/32"), Some(Via::Local));
        assert_eq!(via("10.1.0.255/32"), Some(Via::Blackhole));
        assert_eq!(via("192.0.2.0/24"), Some(Via::Blackhole));
        assert_eq!(via("2001:db8::/64"), Some(Via::Link(eth0)));
        assert_eq!(via("2001:db8::1/128"), Some(Via::Local));
    });
}

#[test]
fn root_the_watcher_follows_links_addresses_routes_and_neighbours() {
    let peer = Peer::new();
    on_runtime(async {
        let mut watcher = Watcher::start().await.unwrap();
        let eth0 = link(&watcher.topology(), "eth0");
        run(&["ip", "addr", "add", "10.1.0.9/32", "dev", "eth0"]);
        until(&mut watcher, "a new address", |t| t.has_address(ip("10.1.0.9"))).await;
        run(&["ip", "addr", "del", "10.1.0.9/32", "dev", "eth0"]);
        until(&mut watcher, "its end", |t| !t.has_address(ip("10.1.0.9"))).await;
        run(&["ip", "route", "add", "10.8.0.0/16", "nexthop", "via", "10.1.0.2", "nexthop", "via", "10.1.0.3"]);
        let is_multipath =
            |t: &Topology| t.routes.iter().any(|r| r.via.legs().len() == 2 && r.prefix.prefix_len() == 16);
        until(&mut watcher, "a multipath route", is_multipath).await;
        run(&["ip", "neigh", "add", "10.1.0.7", "lladdr", "02:00:00:00:00:07", "dev", "eth0", "nud", "stale"]);
        let has_mac = |t: &Topology| t.neighbours.get(&(eth0, ip("10.1.0.7"))) == Some(&MacAddr([2, 0, 0, 0, 0, 7]));
        until(&mut watcher, "a neighbour", has_mac).await;
        run(&["ip", "neigh", "replace", "10.1.0.7", "lladdr", "02:00:00:00:00:08", "dev", "eth0"]);
        until(&mut watcher, "its new address", |t| !has_mac(t)).await;
        run(&["ip", "neigh", "del", "10.1.0.7", "dev", "eth0"]);
        until(&mut watcher, "its end", |t| !t.neighbours.contains_key(&(eth0, ip("10.1.0.7")))).await;
        run(&["ip", "link", "set", "eth0", "mtu", "1400"]);
        until(&mut watcher, "another MTU", |t| t.links[&eth0].mtu == 1400).await;
        peer.ip(&["link", "set", "eth0", "down"]);
        until(&mut watcher, "a lost carrier", |t| !t.links[&eth0].up).await;
        // The kernel says nothing of the routes that go with the link.
        run(&["ip", "link", "set", "eth0", "down"]);
        until(&mut watcher, "the end of its routes", |t| !t.routes.iter().any(|r| r.via == Via::Link(eth0))).await;
        run(&["ip", "link", "del", "eth0"]);
        until(&mut watcher, "the end of the link", |t| {
            t.link_named("eth0").is_none() && !t.has_address(ip("10.1.0.1"))
        })
        .await;
    });
}

#[test]
fn root_the_watcher_mends_lost_messages() {
    let _peer = Peer::new();
    on_runtime(async {
        let mut watcher = Watcher::start().await.unwrap();
        // More messages than the socket holds, while nothing on this thread reads them.
        let mut batch = String::new();
        for n in 0..20_000 {
            let mac = format!("02:00:00:00:{:02x}:{:02x}", n >> 8 & 0xff, n & 0xff);
            writeln!(batch, "neigh replace 10.1.0.77 lladdr {mac} dev eth0 nud stale").unwrap();
        }
        batch += "addr add 10.1.0.9/32 dev eth0\n";
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        run(&["ip", "-batch", file.path().to_str().unwrap()]);
        let eth0 = link(&watcher.topology(), "eth0");
        let last = MacAddr([2, 0, 0, 0, (19_999_u32 >> 8) as u8, 19_999_u32 as u8]);
        until(&mut watcher, "the state after the flood", |t| {
            t.has_address(ip("10.1.0.9")) && t.neighbours.get(&(eth0, ip("10.1.0.77"))) == Some(&last)
        })
        .await;
    });
}

#[test]
fn root_addresses_are_added_once_and_taken_away() {
    let _peer = Peer::new();
    run(&["ip", "addr", "add", "10.1.0.8/32", "dev", "eth0"]);
    on_runtime(async {
        let netlink = Netlink::connect().unwrap();
        let eth0 = Link(netlink.link_index("eth0").await.unwrap().unwrap());
        let mut addresses = Addresses::new(netlink.clone());
        let labelled = StaticAddress {
            label: Some("eth0:vip".into()),
            broadcast: Broadcast::Last,
            scope: 253,
            flags: AddressFlags { noprefixroute: true, ..AddressFlags::default() },
            ..address("10.1.5.9/24")
        };
        let quick = AddressFlags { nodad: true, ..AddressFlags::default() };
        let v6 = StaticAddress { flags: quick, preferred_lifetime: Some(Duration::ZERO), ..address("2001:db8::9/128") };
        let peered = StaticAddress { peer: Some("10.7.0.2/24".parse().unwrap()), ..address("10.7.0.1/32") };
        for wanted in [&labelled, &v6, &peered, &address("10.1.0.9/32")] {
            assert_eq!(addresses.add(eth0, "eth0", wanted).await.unwrap(), Outcome::Added);
            assert_eq!(addresses.add(eth0, "eth0", wanted).await.unwrap(), Outcome::AlreadyThere);
        }
        assert_eq!(addresses.add(eth0, "eth0", &address("10.1.0.8/32")).await.unwrap(), Outcome::AlreadyThere);
        let shown = run(&["ip", "addr", "show", "dev", "eth0"]);
        assert!(shown.contains("inet 10.1.5.9/24 brd 10.1.5.255 scope link noprefixroute eth0:vip"), "{shown}");
        assert!(shown.contains("inet6 2001:db8::9/128 scope global nodad deprecated"), "{shown}");
        assert!(shown.contains("inet 10.7.0.1 peer 10.7.0.2/24 scope global eth0"), "{shown}");
        assert!(shown.contains("inet 10.1.0.9/32 scope global eth0"), "{shown}");
        assert_eq!(addresses.added().len(), 4);
        run(&["ip", "addr", "del", "10.1.0.9/32", "dev", "eth0"]);
        let failed = addresses.remove_all().await;
        assert!(failed.is_empty() && addresses.added().is_empty(), "{failed:?}");
        let left = run(&["ip", "addr", "show", "dev", "eth0"]);
        assert!(left.contains("10.1.0.8/32") && left.contains("10.1.0.1/24"), "{left}");
        assert!(!left.contains("10.1.5.9") && !left.contains("2001:db8::9/") && !left.contains("10.7.0.1"), "{left}");
        addresses.adopt(AddedAddress::new("eth0", &address("10.1.0.8/32")));
        addresses.adopt(AddedAddress::new("gone0", &address("10.1.0.7/32")));
        assert!(addresses.remove_all().await.is_empty());
        assert!(!run(&["ip", "addr", "show", "dev", "eth0"]).contains("10.1.0.8"));
    });
}

#[test]
fn root_an_announcement_moves_an_address_at_the_neighbour() {
    let peer = Peer::new();
    for (address, old) in [("10.1.0.9", "02:00:00:00:00:99"), ("2001:db8::9", "02:00:00:00:00:99")] {
        peer.ip(&["neigh", "add", address, "lladdr", old, "dev", "eth0", "nud", "stale"]);
    }
    on_runtime(async {
        let topology = Watcher::start().await.unwrap().topology();
        let (eth0, state) = topology.link_named("eth0").unwrap();
        let mac = state.mac.unwrap().to_string();
        for address in ["10.1.0.9", "2001:db8::9"] {
            let mut shown = String::new();
            // The peer's IPv6 is up only some time after its link.
            for _ in 0..100 {
                announce(eth0, state, ip(address)).unwrap();
                shown = run(&["ip", "-n", &peer.namespace, "neigh", "show", address]);
                if shown.contains(&mac) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(shown.contains(&mac), "{address} is not at {mac}: {shown}");
        }
    });
}

#[test]
fn root_neighbours_are_found_kept_and_let_go() {
    let _peer = Peer::new();
    run(&["ip", "neigh", "add", "10.1.0.5", "lladdr", "02:00:00:00:00:05", "dev", "eth0"]);
    on_runtime(async {
        let mut watcher = Watcher::start().await.unwrap();
        let eth0 = link(&watcher.topology(), "eth0");
        let mut neighbours = Neighbours::new(Netlink::connect().unwrap());
        let wanted: BTreeSet<_> =
            ["10.1.0.2", "2001:db8::2", "10.1.0.5", "10.1.0.66"].map(|address| (eth0, ip(address))).into();
        neighbours.tend(&wanted).await.unwrap();
        for address in ["10.1.0.2", "2001:db8::2"] {
            until(&mut watcher, address, |t| t.neighbours.contains_key(&(eth0, ip(address)))).await;
        }
        assert!(run(&["ip", "neigh", "show", "10.1.0.2"]).contains("managed"));
        let fixed = run(&["ip", "neigh", "show", "10.1.0.5"]);
        assert!(fixed.contains("PERMANENT") && !fixed.contains("managed"), "{fixed}");
        assert!(!watcher.topology().neighbours.contains_key(&(eth0, ip("10.1.0.66"))), "nobody is there");
        neighbours.tend(&wanted).await.unwrap();
        neighbours.release_all().await.unwrap();
        let all = run(&["ip", "neigh", "show"]);
        assert!(!all.contains("managed"), "{all}");
        assert!(all.contains("10.1.0.5 dev eth0 lladdr 02:00:00:00:00:05 PERMANENT"), "{all}");
    });
}

#[test]
fn root_a_worker_that_meets_a_stranger_has_it_probed() {
    let _peer = Peer::new();
    on_runtime(async {
        let mut watcher = Watcher::start().await.unwrap();
        let eth0 = link(&watcher.topology(), "eth0");
        let neighbours = Neighbours::new(Netlink::connect().unwrap());
        neighbours.probe(eth0, ip("10.1.0.2")).await;
        until(&mut watcher, "the neighbour", |t| t.neighbours.contains_key(&(eth0, ip("10.1.0.2")))).await;
        assert!(!run(&["ip", "neigh", "show", "10.1.0.2"]).contains("managed"));
    });
}

#[test]
fn root_the_kernel_port_is_made_and_removed() {
    let _peer = Peer::new();
    on_runtime(async {
        let netlink = Netlink::connect().unwrap();
        create_kernel_port(&netlink, 2, 1600).await.unwrap();
        let topology = Watcher::start().await.unwrap().topology();
        let (_, dataplane) = topology.link_named(DATAPLANE_END).unwrap();
        let (kernel, state) = topology.link_named(KERNEL_END).unwrap();
        assert_eq!((dataplane.mac, dataplane.mtu, dataplane.queues), (Some(DATAPLANE_MAC), 1600, 2));
        assert!(dataplane.up && state.up && state.queues == 2);
        for other in [IpAddr::from(DATAPLANE_V4), DATAPLANE_V6.into()] {
            assert_eq!(topology.neighbours.get(&(kernel, other)), Some(&DATAPLANE_MAC));
        }
        let own: Vec<_> = topology.addresses_of(kernel).map(|net| net.to_string()).collect();
        assert_eq!(own, ["169.254.83.109/30", "fd53:6c75:6963:6500::1/64"]);
        assert_eq!(topology.addresses_of(link(&topology, DATAPLANE_END)).count(), 0);
        let offloads = run(&["ethtool", "-k", KERNEL_END]);
        for off in [
            "tx-checksumming: off",
            "tx-tcp-segmentation: off",
            "tx-tcp6-segmentation: off",
            "generic-segmentation-offload: off",
        ] {
            assert!(offloads.contains(off), "{offloads}");
        }
        let parameter = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
        assert_eq!(parameter("ipv4/conf/sluice1/accept_local").trim(), "1");
        assert_ne!(parameter("ipv4/conf/sluice1/rp_filter").trim(), "1");
        set_loopback(Loopback::Open).unwrap();
        assert_eq!(parameter("ipv4/conf/sluice1/route_localnet").trim(), "1");
        set_loopback(Loopback::Closed).unwrap();
        assert_eq!(parameter("ipv4/conf/sluice1/route_localnet").trim(), "0");
        create_kernel_port(&netlink, 1, 1500).await.unwrap();
        let again = Watcher::start().await.unwrap().topology();
        assert_eq!(again.link_named(DATAPLANE_END).unwrap().1.queues, 1, "one that was left is made anew");
        remove_kernel_port(&netlink).await.unwrap();
        remove_kernel_port(&netlink).await.unwrap();
        assert_eq!(netlink.link_index(KERNEL_END).await.unwrap(), None);
    });
}

#[test]
fn root_a_foreign_interface_of_the_name_is_left_alone() {
    let _peer = Peer::new();
    run(&["ip", "link", "add", DATAPLANE_END, "type", "bridge"]);
    on_runtime(async {
        let netlink = Netlink::connect().unwrap();
        let refused = create_kernel_port(&netlink, 1, 1500).await.unwrap_err();
        assert!(matches!(refused, KernelPortError::Foreign(_)), "{refused}");
        assert!(remove_kernel_port(&netlink).await.is_err());
        assert!(netlink.link_index(DATAPLANE_END).await.unwrap().is_some());
    });
}

#[test]
fn root_queues_are_set_within_what_there_are() {
    let _peer = Peer::new();
    run(&[
        "ip",
        "link",
        "add",
        "two",
        "numrxqueues",
        "2",
        "numtxqueues",
        "2",
        "type",
        "veth",
        "peer",
        "name",
        "towards",
    ]);
    set_queues("two", 1).unwrap();
    set_queues("two", 1).unwrap();
    set_queues("two", 2).unwrap();
    assert!(set_queues("two", 3).unwrap_err().to_string().contains("it has at most 2"));
    set_queues("eth0", 1).unwrap();
    assert!(set_queues("gone0", 1).is_err());
}
