//! `sluice status`: what the running director does, for people or as JSON.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Args;

use super::reload::no_answer;
use super::{StateArguments, block_on, fail, output};
use crate::api::client;
use crate::api::view::{Count, Counters, Destination, FlowTable, Port, Rule, Service, Socket, Status, Worker};
use crate::state_dir::StateDir;

#[derive(Debug, Args)]
#[command(after_help = "\
The same as JSON: curl --unix-socket /run/sluice/sluice.sock http://sluice/v1/status

Exit codes: 0 shown, 1 the director did not answer, 3 no director is running.")]
pub(super) struct StatusArguments {
    #[command(flatten)]
    state: StateArguments,
    /// Print the whole answer of the API
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &StatusArguments) -> ExitCode {
    let socket = StateDir::new(&arguments.state.state_dir).socket();
    let status = match block_on(client::status(&socket)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return no_answer("no status", &error),
        Err(error) => return fail("no status", &error),
    };
    let text = if arguments.json {
        match serde_json::to_string_pretty(&status) {
            Ok(text) => text + "\n",
            Err(error) => return fail("no status", &error),
        }
    } else {
        render(&status)
    };
    match output::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("cannot print", &error),
    }
}

/// The status as a page of text.
fn render(status: &Status) -> String {
    let mut page = String::new();
    heading(&mut page, status);
    ports(&mut page, &status.ports);
    workers(&mut page, &status.workers);
    flows(&mut page, status);
    services(&mut page, &status.services);
    rules(&mut page, &status.rules);
    findings(&mut page, &status.findings);
    counters(&mut page, &status.counters);
    page
}

/// Appends a line. Writing to a `String` cannot fail.
macro_rules! line {
    ($page:expr, $($arguments:tt)*) => {{ let _ = writeln!($page, $($arguments)*); }};
}

fn heading(page: &mut String, status: &Status) {
    let guard = status.guard_pid.map_or_else(|| "no guard".to_owned(), |pid| format!("guard {pid}"));
    let up = span(status.uptime_seconds);
    line!(page, "sluice {}  pid {} ({guard})  up {up}", status.version, status.pid);
    let configuration = &status.configuration;
    line!(page, "configuration {}  read {} ago", configuration.files.join(", "), span(configuration.age_seconds));
    if let Some(refused) = &configuration.refused {
        line!(page, "the last reload was refused, the configuration before it is in use: {refused}");
    }
}

fn ports(page: &mut String, ports: &[Port]) {
    line!(page, "\nPorts");
    let row = |port: &Port| {
        let traffic = port.traffic;
        [
            port.name.clone(),
            port.mac.clone(),
            port.mtu.to_string(),
            port.queues.to_string(),
            port.mode.clone(),
            port.checksum.clone(),
            packets(traffic.received_packets, traffic.received_bytes),
            packets(traffic.sent_packets, traffic.sent_bytes),
            port.why.clone(),
        ]
    };
    let head = ["name", "mac", "mtu", "queues", "xdp", "checksum", "received", "sent", "why"];
    table(page, head, ports.iter().map(row).collect());
}

fn workers(page: &mut String, workers: &[Worker]) {
    line!(page, "\nWorkers");
    let row = |(index, worker): (usize, &Worker)| {
        let sockets: Vec<_> = worker.sockets.iter().map(socket).collect();
        [
            index.to_string(),
            worker.core.map_or_else(|| "not pinned".to_owned(), |core| core.to_string()),
            worker.heartbeat_age_ms.map_or_else(|| "never".to_owned(), |age| format!("{age} ms ago")),
            sockets.join(", "),
        ]
    };
    table(page, ["worker", "core", "last turn", "sockets"], workers.iter().enumerate().map(row).collect());
}

fn socket(socket: &Socket) -> String {
    let Socket { port, queue, mode, lost } = socket;
    match lost {
        0 => format!("{port} queue {queue} {mode}"),
        lost => format!("{port} queue {queue} {mode} (its ring was full: {lost} lost)"),
    }
}

fn flows(page: &mut String, status: &Status) {
    line!(page, "\nFlows");
    let row = |t: &FlowTable| [t.family.clone(), t.flows.to_string(), t.capacity.to_string()];
    table(page, ["family", "flows", "room for"], status.flows.iter().map(row).collect());
}

/// As `ipvsadm -L -n` prints it, real servers by address; IPVS itself, and the JSON, have the latest first.
fn services(page: &mut String, services: &[Service]) {
    line!(page, "\nServices");
    line!(page, "Prot LocalAddress:Port Scheduler Flags");
    line!(
        page,
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn  InPkts (bytes)       OutPkts (bytes)      Way"
    );
    for service in services {
        let address = service_name(service);
        let note = match (service.local, service.mark) {
            (true, _) => "",
            (false, None) => "  (address not on this machine: not served)",
            (false, Some(_)) => "  (no rule gives this mark: not served)",
        };
        line!(page, "{:<4} {address} {}{}{note}", service.protocol, service.scheduler, persistent(service));
        if !service.points.is_empty() {
            line!(page, "     at {}", service.points.join(", "));
        }
        let mut destinations: Vec<_> = service.destinations.iter().collect();
        destinations.sort_by_key(|destination| (destination.address, destination.port));
        for destination in destinations {
            real_server(page, destination);
        }
    }
}

fn service_name(service: &Service) -> String {
    match (service.mark, &service.group) {
        (Some(mark), _) if service.address.is_ipv6() => format!("{mark} IPv6"),
        (Some(mark), _) => mark.to_string(),
        (None, Some(group)) => format!("group {group}"),
        (None, None) => endpoint(service.address, service.port),
    }
}

/// As ipvsadm writes it behind the scheduler.
fn persistent(service: &Service) -> String {
    let Some(persistent) = &service.persistent else { return String::new() };
    let mask = persistent.mask.as_ref().map_or_else(String::new, |mask| format!(" mask {mask}"));
    format!(" persistent {}{mask}", persistent.timeout)
}

fn real_server(page: &mut String, destination: &Destination) {
    let address = endpoint(destination.address, destination.port);
    let forward = match destination.method.as_str() {
        "nat" => "Masq",
        "dr" => "Route",
        "tun" => "Tunnel",
        "fullnat" => "FullNat",
        other => other,
    };
    let Destination { weight, active, inactive, way, inbound, outbound, standing, .. } = destination;
    // Weight 0 says by itself that a server is quiet.
    let is_told = matches!(standing.as_str(), "overloaded" | "draining");
    let way = if is_told { format!("{way}, {standing}") } else { way.clone() };
    let (inbound, outbound) = (packets(inbound.packets, inbound.bytes), packets(outbound.packets, outbound.bytes));
    line!(
        page,
        "  -> {address:<28} {forward:<7} {weight:<6} {active:<10} {inactive:<10} {inbound:<20} {outbound:<20} {way}"
    );
}

fn rules(page: &mut String, rules: &[Rule]) {
    if rules.is_empty() {
        return;
    }
    line!(page, "\nRules");
    let row = |rule: &Rule| [rule.matched.to_string(), rule.rule.clone()];
    table(page, ["matched", "rule"], rules.iter().map(row).collect());
}

fn findings(page: &mut String, findings: &[String]) {
    if findings.is_empty() {
        return;
    }
    line!(page, "\nFindings");
    for finding in findings {
        line!(page, "  {finding}");
    }
}

fn counters(page: &mut String, counters: &Counters) {
    for (title, counts) in [("Drops", &counters.drops), ("Events", &counters.events)] {
        line!(page, "\n{title}");
        let counted = counts.iter().filter(|(_, count)| count.count > 0);
        let row = |(name, count): (&String, &Count)| [name.clone(), count.count.to_string(), count.meaning.clone()];
        table(page, ["name", "count", "meaning"], counted.map(row).collect());
    }
    line!(page, "\nSteering (XDP)");
    let counted = counters.steering.iter().filter(|(_, count)| **count > 0);
    table(page, ["verdict", "frames"], counted.map(|(name, count)| [name.clone(), count.to_string()]).collect());
}

/// Appends a table with two spaces in front and between; the last column is not padded.
fn table<const N: usize>(page: &mut String, head: [&str; N], rows: Vec<[String; N]>) {
    if rows.is_empty() {
        line!(page, "  none");
        return;
    }
    let widths: [usize; N] =
        std::array::from_fn(|n| rows.iter().map(|row| row[n].len()).chain([head[n].len()]).max().unwrap_or(0));
    for row in std::iter::once(head.map(str::to_owned)).chain(rows) {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line!(page, "  {}", cells.join("  ").trim_end());
    }
}

fn endpoint(address: std::net::IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn packets(packets: u64, bytes: u64) -> String {
    format!("{packets} ({})", size(bytes))
}

/// Bytes, in the unit that leaves at most four digits.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 10_240 && unit + 1 < units.len() {
        value /= 1024;
        unit += 1;
    }
    format!("{value} {}", units[unit])
}

/// A span of time, in its two largest units.
fn span(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::{Configuration, Flowed, Persistent, PortTraffic};

    fn example() -> Status {
        let destination = |last: u8, weight, way: &str| Destination {
            address: [10, 2, 0, last].into(),
            port: 8080,
            method: "nat".into(),
            weight,
            active: 2,
            inactive: 1,
            connections: 3,
            inbound: Flowed { packets: 12, bytes: 1200 },
            outbound: Flowed { packets: 9, bytes: 99_000 },
            standing: if weight == 0 { "draining" } else { "serving" }.into(),
            way: way.into(),
        };
        let count = |n, meaning: &str| Count { count: n, meaning: meaning.into() };
        Status {
            version: "0.1.0".into(),
            pid: 12,
            guard_pid: Some(11),
            uptime_seconds: 3720,
            configuration: Configuration { files: vec!["a.conf".into()], age_seconds: 61, refused: None },
            ports: vec![Port {
                name: "eth0".into(),
                ifindex: 2,
                mac: "02:00:00:00:00:01".into(),
                mtu: 1500,
                queues: 1,
                mode: "native".into(),
                checksum: "full".into(),
                why: "VIP 10.1.0.100".into(),
                traffic: PortTraffic { received_packets: 10, received_bytes: 20_480, sent_packets: 9, sent_bytes: 900 },
            }],
            workers: vec![Worker {
                core: Some(1),
                heartbeat_age_ms: Some(3),
                sockets: vec![Socket { port: "eth0".into(), queue: 0, mode: "copy".into(), lost: 0 }],
            }],
            services: vec![Service {
                protocol: "TCP".into(),
                address: [10, 1, 0, 100].into(),
                port: 80,
                mark: None,
                group: None,
                points: Vec::new(),
                scheduler: "wrr".into(),
                persistent: Some(Persistent { timeout: 360, mask: Some("255.255.255.0".into()) }),
                local: true,
                destinations: vec![destination(2, 3, "resolved"), destination(1, 0, "unresolved")],
            }],
            flows: vec![FlowTable { family: "IPv4".into(), flows: 3, capacity: 1000 }],
            rules: Vec::new(),
            findings: vec!["real server 10.2.0.1 does not answer ARP on eth1".into()],
            counters: Counters {
                drops: [("too_big".to_owned(), count(1, "larger than the way")), ("x".to_owned(), count(0, "never"))]
                    .into(),
                events: [("forwarded".to_owned(), count(19, "frames sent"))].into(),
                steering: [("redirected".to_owned(), 10)].into(),
            },
        }
    }

    #[test]
    fn the_page_is_as_expected() {
        assert_eq!(render(&example()), include_str!("status_example.txt"));
    }

    #[test]
    fn a_refused_reload_and_an_absent_vip_are_told() {
        let mut status = example();
        status.configuration.refused = Some("a.conf:3: unknown keyword".into());
        status.services[0].local = false;
        let page = render(&status);
        assert!(page.contains("refused, the configuration before it is in use: a.conf:3"), "{page}");
        assert!(page.contains("(address not on this machine: not served)"), "{page}");
    }

    #[test]
    fn what_a_socket_lost_is_told() {
        let mut status = example();
        status.workers[0].sockets[0].lost = 7;
        let page = render(&status);
        assert!(page.contains("eth0 queue 0 copy (its ring was full: 7 lost)"), "{page}");
    }

    #[test]
    fn sizes_and_spans_keep_few_digits() {
        assert_eq!(
            [size(0), size(10_239), size(10_240), size(u64::MAX)].join(" "),
            "0 B 10239 B 10 KiB 17179869183 GiB"
        );
        assert_eq!([span(59), span(61), span(3600), span(90_000)].join(", "), "59 s, 1 min 1 s, 1 h 0 min, 1 d 1 h");
    }
}
