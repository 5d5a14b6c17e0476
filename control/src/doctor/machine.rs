//! Privilege, kernel, interfaces and sysctls, as far as they matter to a director.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Item, Level};
use crate::config::{Config, ForwardingMethod};

/// The oldest kernel whose AF_XDP has what sockets here ask for (`need_wakeup`, and XDP by netlink that is replaced).
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// Largest MTU at which drivers take an XDP program: one page less its headroom and what the kernel keeps behind a frame.
const MOST_MTU: u64 = 3506;

/// All checks of this machine.
pub(super) fn examine(config: Option<&Config>) -> Vec<Item> {
    let mut items = vec![privilege(), kernel()];
    items.extend(jit());
    items.extend(interfaces());
    items.extend(forwarding(config));
    items.push(local_ports());
    items
}

#[cfg(feature = "afxdp")]
fn privilege() -> Item {
    match crate::director::privilege::check() {
        Ok(()) => Item::new(Level::Good, "privilege", "this user may run a director"),
        Err(error) => Item::new(Level::Problem, "privilege", error.to_string()),
    }
}

#[cfg(not(feature = "afxdp"))]
fn privilege() -> Item {
    Item::new(Level::Problem, "privilege", "this program was built without AF_XDP and cannot run a director")
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel() -> Item {
    let Some(release) = read("/proc/sys/kernel/osrelease") else {
        return Item::new(Level::Note, "kernel", "its version cannot be read");
    };
    let version = version(&release);
    let has_bpf = Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists();
    match version {
        Some(version) if version < OLDEST_KERNEL => {
            let (major, minor) = OLDEST_KERNEL;
            Item::new(Level::Problem, "kernel", format!("Linux {release} is too old"))
                .help(format!("at least Linux {major}.{minor} is needed"))
        }
        _ if !has_bpf => {
            Item::new(Level::Problem, "kernel", format!("Linux {release} was built without the bpf system call"))
                .help("CONFIG_BPF_SYSCALL and CONFIG_XDP_SOCKETS are needed")
        }
        Some(_) => Item::new(Level::Good, "kernel", format!("Linux {release}")),
        None => Item::new(Level::Note, "kernel", format!("its version `{release}` is not understood")),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn jit() -> Option<Item> {
    let is_off = read("/proc/sys/net/core/bpf_jit_enable")? == "0";
    is_off.then(|| {
        Item::new(Level::Warning, "kernel", "BPF programs are interpreted, which makes steering several times slower")
            .help("sysctl -w net.core.bpf_jit_enable=1")
    })
}

/// What `ip` and `ethtool` say of every Ethernet interface.
fn interfaces() -> Vec<Item> {
    let output = match Command::new("ip").args(["-d", "-j", "link", "show"]).env("LC_ALL", "C").output() {
        Ok(output) if output.status.success() => output.stdout,
        Ok(_) => return vec![Item::new(Level::Note, "interfaces", "not looked at: `ip -d -j link show` failed")],
        Err(_) => return vec![Item::new(Level::Note, "interfaces", "not looked at: the program `ip` is missing")],
    };
    let mut items = links(&String::from_utf8_lossy(&output));
    if Command::new("ethtool").arg("--version").output().is_err() {
        items.push(Item::new(Level::Note, "offloads", "not looked at: the program `ethtool` is missing"));
        return items;
    }
    for name in names(&String::from_utf8_lossy(&output)) {
        let asked = Command::new("ethtool").args(["-k", &name]).env("LC_ALL", "C").output();
        let said = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        items.extend(offloads(&name, &said));
    }
    items
}

fn ethernet(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
    all.into_iter().filter(|link| link.get("link_type").and_then(Value::as_str) == Some("ether")).collect()
}

fn field<'v>(link: &'v Value, name: &str) -> &'v str {
    link.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn names(text: &str) -> Vec<String> {
    ethernet(text).iter().map(|link| field(link, "ifname").to_owned()).filter(|name| !name.is_empty()).collect()
}

/// What `ip -d -j link show` tells.
fn links(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    for link in ethernet(text) {
        let name = field(&link, "ifname");
        let mtu = link.get("mtu").and_then(Value::as_u64).unwrap_or(0);
        if mtu > MOST_MTU {
            let text = format!("{name} has an MTU of {mtu}; drivers take no XDP program above about {MOST_MTU}");
            items.push(
                Item::new(Level::Warning, "interfaces", text)
                    .help(format!("ip link set {name} mtu 1500, if it is to be a port of the director")),
            );
        }
        if let Some(id) = link.pointer("/xdp/prog/id").and_then(Value::as_u64) {
            let text = format!("{name} has an XDP program, of number {id}");
            items.push(Item::new(Level::Note, "interfaces", text).help(format!(
                "`bpftool prog show id {id}`: Sluice's own is named sluice_steer; it leaves another's alone and does not start"
            )));
        }
        if link.pointer("/linkinfo/info_kind").and_then(Value::as_str) == Some("bridge") {
            let text = format!("{name} is a bridge, which cannot be a port");
            items.push(
                Item::new(Level::Note, "interfaces", text)
                    .help("put VIPs and routes to real servers on an interface below it"),
            );
        }
    }
    if items.is_empty() {
        items.push(Item::new(Level::Good, "interfaces", "no MTU or XDP program of others is in the way"));
    }
    items
}

/// What `ethtool -k` tells.
fn offloads(name: &str, said: &str) -> Option<Item> {
    let is_on = said.lines().any(|line| line.trim_start().starts_with("large-receive-offload: on"));
    is_on.then(|| {
        Item::new(
            Level::Warning,
            "offloads",
            format!("{name} merges what it receives (LRO), under which drivers refuse XDP"),
        )
        .help(format!("ethtool -K {name} lro off"))
    })
}

/// What the kernel does with packets that are not of services, where servers have the director as their gateway.
fn forwarding(config: Option<&Config>) -> Vec<Item> {
    let Some(config) = config else { return Vec::new() };
    let servers = || config.virtual_servers.iter().flat_map(|service| &service.real_servers);
    let families = [
        ("/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward", true),
        ("/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding", false),
    ];
    let mut items = Vec::new();
    for (path, name, is_v4) in families {
        let is_gateway =
            servers().any(|server| server.method == ForwardingMethod::Nat && server.at.address.is_ipv4() == is_v4);
        if is_gateway && read(path).as_deref() == Some("0") {
            items.push(
                Item::new(
                    Level::Note,
                    "forwarding",
                    format!("{name} is 0: services of NAT work, but servers reach nothing else through this machine"),
                )
                .help(format!("sysctl -w {name}=1, if it is to be their gateway for their own connections too")),
            );
        }
    }
    items
}

/// Ports from which the kernel opens connections of its own.
fn local_ports() -> Item {
    match read("/proc/sys/net/ipv4/ip_local_port_range") {
        Some(range) => {
            let range = range.split_whitespace().collect::<Vec<_>>().join("-");
            Item::new(Level::Good, "ports", format!("the kernel opens connections of its own from ports {range}"))
                .help("a local address of FULLNAT that the machine uses itself has to stay clear of them")
        }
        None => Item::new(Level::Note, "ports", "ip_local_port_range cannot be read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("5.4.17-2136.el8uek"), Some((5, 4)));
        assert_eq!(version("6.18+"), Some((6, 18)));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn links_are_read_as_ip_prints_them() {
        let text = r#"[{"ifname":"lo","link_type":"loopback","mtu":65536},
            {"ifname":"eth0","link_type":"ether","mtu":9000,"xdp":{"mode":1,"prog":{"id":42,"tag":"0123"}}},
            {"ifname":"br0","link_type":"ether","mtu":1500,"linkinfo":{"info_kind":"bridge"}}]"#;
        let told: Vec<_> = links(text).into_iter().map(|item| (item.level, item.text)).collect();
        assert_eq!(
            told,
            [
                (Level::Warning, "eth0 has an MTU of 9000; drivers take no XDP program above about 3506".to_owned()),
                (Level::Note, "eth0 has an XDP program, of number 42".to_owned()),
                (Level::Note, "br0 is a bridge, which cannot be a port".to_owned()),
            ]
        );
        assert_eq!(links("no json")[0].level, Level::Good);
        assert_eq!(names(text), ["eth0", "br0"]);
    }

    #[test]
    fn lro_is_told() {
        assert!(offloads("eth0", "Features for eth0:\nlarge-receive-offload: on\n").is_some());
        assert!(offloads("eth0", "large-receive-offload: off [fixed]\n").is_none());
    }
}
