//! What right files mean: the model that comes out of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use control::config::{
    Broadcast, BusyPoll, ChecksumPolicy, Config, CopyMode, DataplaneConfig, ForwardingMethod, Idle, KernelPort,
    LoadOptions, Loaded, Queues, XdpMode, load, parse_text,
};
use dataplane::ident::{CoreIndex, NetPort, Protocol};
use dataplane::rules::{Rate, Scope};
use dataplane::sched::{Fallback, HashFlags, HashPort, SchedulerKind};
use dataplane::service::{
    ConnectionLimits, Datagrams, Encapsulation, ExpireReset, GreChecksum, GueChecksum, Limit, MssClamp, Persistence,
    ProxyVersion, Refusal, TcpTimestamps, Thresholds, Toa,
};
use dataplane::snapshot::PortReuse;
use dataplane::state::TcpState;
use dataplane::syn_proxy::{ReusableStates, SynProxy};

fn options() -> LoadOptions {
    LoadOptions { config_id: "lb1".to_owned(), ..LoadOptions::default() }
}

fn parse(text: &str) -> Loaded {
    parse_text("test.conf", text.as_bytes(), &options())
}

fn config(text: &str) -> Config {
    let loaded = parse(text);
    let errors = loaded.diagnostics.render_plain();
    loaded.config.unwrap_or_else(|| panic!("{errors}"))
}

fn messages(text: &str) -> Vec<String> {
    parse(text).diagnostics.iter().map(|diagnostic| diagnostic.message.clone()).collect()
}

#[test]
fn a_virtual_server_with_all_its_parts() {
    let config = config(
        "virtual_server 2001:db8::1 443 {\n delay_loop 6.5\n lvs_sched mh\n mh-port\n mh-fallback\n lvs_method DR\n \
         protocol tcp\n weight 7\n inhibit_on_failure\n real_server 2001:db8::2 443 {\n }\n \
         real_server 2001:db8::3 {\n weight 0\n lvs_method TUN\n inhibit_on_failure off\n }\n}\n",
    );
    let [service] = config.virtual_servers.as_slice() else { panic!("one service") };
    assert_eq!(service.name.to_string(), "TCP [2001:db8::1]:443");
    assert_eq!(service.scheduler, SchedulerKind::Mh(HashFlags { port: HashPort::Included, fallback: Fallback::Walk }));
    assert_eq!(service.method, ForwardingMethod::Dr);
    assert_eq!(service.place.to_string(), "test.conf:1:1");
    let [first, second] = service.real_servers.as_slice() else { panic!("two servers") };
    assert_eq!((first.weight.value(), first.method, first.inhibit_on_failure), (7, ForwardingMethod::Dr, true));
    assert_eq!(second.at.to_string(), "[2001:db8::3]:443");
    assert_eq!((second.weight.value(), second.method, second.inhibit_on_failure), (0, ForwardingMethod::Tun, false));
    assert_eq!(second.place.to_string(), "test.conf:12:2");
}

fn in_server(line: &str) -> String {
    format!("virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{line}\nreal_server 198.51.100.1 80 {{ }}\n}}\n")
}

#[test]
fn tunnels_have_a_type_and_checksums() {
    let form = |options: &str| {
        let service = config(&in_server(&format!("lb_kind TUN {options}"))).virtual_servers.remove(0);
        assert_eq!(service.method, ForwardingMethod::Tun);
        assert_eq!(service.real_servers[0].encapsulation, service.encapsulation);
        service.encapsulation
    };
    let gue = |checksum| Encapsulation::Gue { port: NetPort::new(6080), checksum };
    assert_eq!(form(""), Encapsulation::Ipip);
    assert_eq!(form("type ipip"), Encapsulation::Ipip);
    assert_eq!(form("type gre"), Encapsulation::Gre(GreChecksum::Absent));
    assert_eq!(form("type gre nocsum"), Encapsulation::Gre(GreChecksum::Absent));
    assert_eq!(form("type gre csum"), Encapsulation::Gre(GreChecksum::Present));
    assert_eq!(form("type gue port 6080"), gue(GueChecksum::Absent));
    assert_eq!(form("type gue port 6080 csum"), gue(GueChecksum::Present));
    assert_eq!(form("type gue port 6080 remcsum"), gue(GueChecksum::Remote));
    let own = "virtual_server 192.0.2.1 80 {\nlb_kind TUN type gre\nreal_server 198.51.100.1 80 {\n\
               lvs_method TUN type gue port 9 csum\n}\nreal_server 198.51.100.2 80 { }\n}\n";
    let servers = config(own).virtual_servers.remove(0).real_servers;
    let port = NetPort::new(9);
    assert_eq!(servers[0].encapsulation, Encapsulation::Gue { port, checksum: GueChecksum::Present });
    assert_eq!(servers[1].encapsulation, Encapsulation::Gre(GreChecksum::Absent));
}

#[test]
fn tunnels_that_cannot_be_are_refused() {
    for (options, message) in [
        ("type ipip csum", "a tunnel of type ipip has no `csum`"),
        ("nocsum", "a tunnel of type ipip has no `nocsum`"),
        ("port 7", "a tunnel of type ipip has no `port`"),
        ("type gre remcsum", "a tunnel of type gre has no `remcsum`"),
        ("type gre port 7", "a tunnel of type gre has no `port`"),
        ("type gue", "a tunnel of type gue needs `port` and a number"),
        ("type gue port 0", "port 0 is out of range"),
        ("type gue port", "`port` needs a number"),
        ("type vxlan", "`vxlan` is no type of tunnel"),
        ("type", "`type` needs a tunnel"),
        ("key 7", "`key` is no option of TUN"),
    ] {
        let said = messages(&in_server(&format!("lb_kind TUN {options}")));
        assert_eq!(said.iter().filter(|said| *said == message).count(), 1, "{options}: {said:?}");
    }
}

#[test]
fn tunnel_sources_are_a_prefix_of_each_family() {
    let sources =
        |line: &str| config(&in_server(&format!("lb_kind TUN\n{line}"))).virtual_servers.remove(0).tunnel_sources;
    assert!(sources("").is_empty());
    assert_eq!(sources("tunnel_source 172.16.9.9/16"), ["172.16.0.0/16".parse().unwrap()]);
    let both = ["fd00:9::/64".parse().unwrap(), "192.0.2.7/32".parse().unwrap()];
    assert_eq!(sources("tunnel_source fd00:9::/64 192.0.2.7"), both);
    for (line, message) in [
        ("tunnel_source", "`tunnel_source` needs a prefix"),
        ("tunnel_source 172.16", "`172.16` is no prefix"),
        ("tunnel_source 224.0.0.0/8", "224.0.0.0/8 has no addresses to send from"),
        ("tunnel_source 10.0.0.0/8 10.0.0.1", "a second prefix of one family"),
    ] {
        assert!(messages(&in_server(line)).contains(&message.to_owned()), "{line}: {:?}", messages(&in_server(line)));
    }
}

#[test]
fn sctp_goes_by_all_methods_but_fullnat() {
    let text = |kind: &str| in_server(&format!("protocol sctp\nlb_kind {kind}")).replace("protocol TCP\n", "");
    for kind in ["NAT", "DR", "TUN"] {
        assert_eq!(config(&text(kind)).virtual_servers[0].name.to_string(), "SCTP 192.0.2.1:80");
    }
    let said = messages(&text("FULLNAT"));
    assert!(said.contains(&"198.51.100.1:80 cannot be reached by FULLNAT with SCTP".to_owned()), "{said:?}");
}

#[test]
fn the_mss_may_be_clamped() {
    let clamp = |line: &str| {
        let text =
            format!("virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{line}\nreal_server 198.51.100.1 80 {{ }}\n}}\n");
        config(&text).virtual_servers[0].mss_clamp
    };
    assert_eq!(clamp(""), MssClamp::Off);
    assert_eq!(clamp("mss_clamp off"), MssClamp::Off);
    assert_eq!(clamp("mss_clamp on"), MssClamp::ByWay);
    assert_eq!(clamp("mss_clamp 1360"), MssClamp::To(1360));
    let wrong = messages("virtual_server 192.0.2.1 80 {\nmss_clamp 80\nmss_clamp maybe\n}\n");
    assert!(wrong.contains(&"segment size in bytes 80 is out of range".to_owned()), "{wrong:?}");
    assert!(wrong.contains(&"`maybe` is neither on nor off".to_owned()), "{wrong:?}");
}

#[test]
fn a_service_may_be_proxied() {
    let proxy = |lines: &str| {
        let text =
            format!("virtual_server 192.0.2.1 80 {{\nprotocol TCP\n{lines}\nreal_server 198.51.100.1 80 {{ }}\n}}\n");
        config(&text).virtual_servers[0].syn_proxy
    };
    assert_eq!(proxy(""), None);
    assert_eq!(proxy("syn_proxy"), Some(SynProxy::default()));
    let all = "syn_proxy {\nmss 1400\nwscale off\nsack off\ntimestamps on\ndefer\nsyn_retry 0\nack_storm 0\n\
               conn_reuse close last_ack\n}";
    let expected = SynProxy {
        mss: Some(1400),
        window_scale: Some(None),
        sack: Some(false),
        timestamps: Some(true),
        defer: true,
        retries: 0,
        ack_storm: 0,
        reusable: ReusableStates::NONE.with(TcpState::Close).with(TcpState::LastAck),
    };
    assert_eq!(proxy(all), Some(expected));
    let wrong = |text: &str| messages(text).join("; ");
    let block =
        |lines: &str| format!("virtual_server 192.0.2.1 80 {{\n{lines}\nreal_server 198.51.100.1 80 {{ }}\n}}\n");
    let said = wrong(&block("protocol TCP\nlb_kind DR\nsyn_proxy"));
    assert!(said.contains("`syn_proxy` cannot serve 198.51.100.1:80 by DR"), "{said}");
    let said = wrong(&block("protocol UDP\nlb_kind NAT\nsyn_proxy"));
    assert!(said.contains("`syn_proxy` is for TCP, and this is a UDP service"), "{said}");
    let said = wrong(&block("protocol TCP\nsyn_proxy {\nwscale 15\nconn_reuse established\nsyn_retry 7\n}"));
    for part in ["window scale 15 is out of range", "`established` is no state", "number of retries 7"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn servers_learn_their_clients_as_a_service_says() {
    let text = |kind: &str, protocol: &str, lines: &str| {
        format!(
            "local_address_group locals {{\n198.51.100.9\n}}\nvirtual_server 192.0.2.1 80 {{\nlb_kind {kind}\nprotocol \
             {protocol}\n{lines}\nreal_server 198.51.100.1 80 {{ }}\n}}\n"
        )
    };
    let towards = |kind, lines| {
        let towards = config(&text(kind, "TCP", lines)).virtual_servers[0].towards;
        (towards.client_address.toa, towards.client_address.proxy, towards.tcp_timestamps, towards.expire_reset)
    };
    let (keep, remove) = (TcpTimestamps::Keep, TcpTimestamps::Remove);
    let group = "laddr_group_name locals";
    assert_eq!(towards("FNAT", group), (Toa::On, None, keep, ExpireReset::On));
    let lines = format!("{group}\nproxy_protocol v1\ntcp_timestamps remove\nexpire_rst off");
    assert_eq!(towards("FNAT", &lines), (Toa::Off, Some(ProxyVersion::V1), remove, ExpireReset::Off));
    let lines = format!("{group}\nproxy_protocol v2\ntoa");
    assert_eq!(towards("FNAT", &lines), (Toa::On, Some(ProxyVersion::V2), keep, ExpireReset::On));
    assert_eq!(towards("NAT", "expire_rst on").3, ExpireReset::On);
    assert_eq!(towards("NAT", "").3, ExpireReset::Off);

    let said = |kind, protocol, lines| messages(&text(kind, protocol, lines)).join("; ");
    let useless = "`proxy_protocol` has no effect: no real server here is reached by FNAT";
    assert!(said("NAT", "TCP", "proxy_protocol v2").contains(useless));
    let lines = format!("{group}\nproxy_protocol v1");
    assert!(said("FNAT", "UDP", &lines).contains("version 1 of the PROXY protocol knows no UDP"));
    let lines = format!("{group}\nproxy_protocol v3\ntcp_timestamps");
    let wrong = said("FNAT", "TCP", &lines);
    assert!(wrong.contains("`v3`") && wrong.contains("`tcp_timestamps` needs keep or remove"), "{wrong}");
}

#[test]
fn what_is_left_out_is_what_keepalived_takes() {
    let text = "virtual_server 192.0.2.1 {\nreal_server 198.51.100.1 { }\n}\n";
    let config = config(text);
    let service = &config.virtual_servers[0];
    assert_eq!(service.name.protocol(), Some(Protocol::Udp));
    assert_eq!(service.scheduler, SchedulerKind::Wlc);
    assert_eq!(service.method, ForwardingMethod::Nat);
    assert!(service.name.to_string().ends_with(":0") && service.real_servers[0].at.port.is_any());
    assert_eq!(service.real_servers[0].weight.value(), 1);
    assert_eq!(messages(text).len(), 4, "{:?}", messages(text));
}

#[test]
fn a_port_is_mapped_by_nat_alone() {
    let server = |kind: &str| {
        let text = format!(
            "virtual_server 192.0.2.1 80 {{\nlb_algo rr\nlb_kind {kind}\nprotocol TCP\nreal_server 198.51.100.1 8080 {{ }}\n}}"
        );
        (config(&text).virtual_servers[0].real_servers[0].at.port.host(), messages(&text))
    };
    assert_eq!(server("NAT"), (8080, vec![]));
    assert_eq!(server("DR"), (80, vec!["DR and TUN cannot change the port".to_owned()]));
    assert_eq!(server("TUN").0, 80);
}

#[test]
fn static_addresses_have_their_options() {
    let config = config(
        "global_defs {\n default_interface back\n}\nstatic_ipaddress {\n 192.0.2.1/24 brd + dev front scope link label \
         front:1 noprefixroute\n 2001:db8::1/64 dev front -nodad preferred_lft 0\n 198.51.100.1 peer 198.51.100.2/32\n}\n",
    );
    let [first, second, third] = config.static_addresses.as_slice() else { panic!("three addresses") };
    assert_eq!(first.address.to_string(), "192.0.2.1/24");
    assert_eq!((first.broadcast, first.scope, first.label.as_deref()), (Broadcast::Last, 253, Some("front:1")));
    assert!(first.flags.noprefixroute && !first.flags.nodad);
    assert!(second.flags.nodad);
    assert_eq!(second.preferred_lifetime, Some(Duration::ZERO));
    assert_eq!(third.address.to_string(), "198.51.100.1/32");
    assert_eq!(third.peer.map(|peer| peer.to_string()).as_deref(), Some("198.51.100.2/32"));
    assert_eq!(third.dev, "back");
}

#[test]
fn the_dataplane_block_has_its_settings() {
    let config = config(
        "global_defs {\n lvs_timeouts tcp 100 udp 7\n}\ndataplane {\n workers 2 cores 1 3\n idle busy\n connections \
         4000\n extensions 2000\n sloppy_tcp on\n kernel_port on rate 5\n timeouts { tcp 900 tcpfin 0 }\n interface eth0 {\n queues 2\n \
         mode native copy zerocopy\n checksum full\n busy_poll on budget 16\n }\n interface eth1 { queues all }\n}\n",
    );
    let dataplane = config.dataplane;
    let workers = dataplane.workers.clone().unwrap();
    assert_eq!((workers.count, workers.cores), (2, vec![CoreIndex(1), CoreIndex(3)]));
    assert_eq!((dataplane.idle, dataplane.sloppy_tcp), (Idle::Busy, true));
    assert_eq!((dataplane.connections, dataplane.connections6), (4000, 1000));
    let rooms = dataplane.capacities().map(|capacity| (capacity.flows, capacity.extensions));
    assert_eq!(rooms, [(4000, 2000), (1000, 1000)]);
    let default = DataplaneConfig::default().capacities().map(|capacity| capacity.extensions);
    assert_eq!(default, [DataplaneConfig::CONNECTIONS / 4, DataplaneConfig::CONNECTIONS / 16]);
    assert_eq!(dataplane.kernel_port, Some(KernelPort { rate: 5 }));
    let seconds = |timeout: Option<Duration>| timeout.map(|timeout| timeout.as_secs());
    assert_eq!(seconds(dataplane.timeouts.tcp), Some(900));
    assert_eq!(seconds(dataplane.timeouts.tcpfin), None);
    assert_eq!(seconds(dataplane.timeouts.udp), Some(7));
    let [eth0, eth1] = dataplane.interfaces.as_slice() else { panic!("two interfaces") };
    assert_eq!((eth0.queues, eth0.mode, eth0.copy), (Queues::Count(2), XdpMode::Native, CopyMode::ZeroCopy));
    assert_eq!((eth0.checksum, eth0.busy_poll), (ChecksumPolicy::Full, Some(BusyPoll { budget: 16 })));
    assert_eq!((eth1.queues, eth1.mode, eth1.busy_poll), (Queues::All, XdpMode::Auto, None));
}

#[test]
fn an_empty_file_is_a_configuration() {
    assert_eq!(config(""), Config::default());
    assert_eq!(config("# nothing\r\n! at all\r\n"), Config::default());
}

#[test]
fn carriage_returns_and_byte_order_change_nothing() {
    let text =
        "virtual_server 192.0.2.1 80 {\n lb_algo rr\n lb_kind NAT\n protocol TCP\n real_server 192.0.2.2 80 { }\n}\n";
    assert_eq!(config(text), config(&text.replace('\n', "\r\n")));
    assert!(messages(&text.replace('\n', "\r\n")).is_empty());
}

#[test]
fn lines_with_an_id_are_for_that_id() {
    let text = "@lb1 $PORT=80\n@lb2 $PORT=81\n@sluice dataplane { workers 3 }\n@^sluice nonsense\n@^lb1 nonsense\n\
                virtual_server 192.0.2.1 $PORT {\nreal_server 192.0.2.2 $PORT { }\n}\n";
    let config = config(text);
    assert!(config.virtual_servers[0].name.to_string().ends_with(":80"));
    assert_eq!(config.dataplane.workers.map(|workers| workers.count), Some(3));
}

#[test]
fn sequences_repeat_a_line() {
    let text = "$SERVER= \\\n real_server 198.51.${net}.$host 80 { \\\n weight $w \\\n }\nvirtual_server 192.0.2.1 80 {\n\
                ~LST({net, w}, {1, 10}, {2, 20}) ~SEQ(host, 7, 8) $SERVER\n}\n~SEQ(port, 81, 82) virtual_server 192.0.2.1 $port \
                { real_server 198.51.100.1 { } }\n";
    let config = config(text);
    let servers: Vec<_> =
        config.virtual_servers[0].real_servers.iter().map(|s| (s.at.address.to_string(), s.weight.value())).collect();
    let expected = [("198.51.1.7", 10), ("198.51.1.8", 10), ("198.51.2.7", 20), ("198.51.2.8", 20)];
    assert_eq!(servers, expected.map(|(address, weight)| (address.to_owned(), weight)));
    assert_eq!(config.virtual_servers.len(), 3);
    assert_eq!(messages("~SEQ(i, 1, 100000) x\n"), ["this sequence makes no sense"]);
    let many = messages("~SEQ(i, 60000) ~SEQ(j, 60000) # comment\n");
    assert_eq!(many, ["sequences give too many lines"]);
}

#[test]
fn includes_are_read_where_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    write("main.conf", "$NET=198.51.100\ninclude d/*.conf\ninclude nothing*.conf\n");
    write("d/a.conf", "virtual_server 192.0.2.1 80 {\nprotocol TCP\nlb_algo rr\nlb_kind NAT\ninclude servers\n}\n");
    write("d/servers", "real_server ${NET}.1 80 { }\nreal_server ${NET}.2 80 { }\n");
    let loaded = load(&[dir.path().join("main.conf")], &options());
    assert_eq!(loaded.diagnostics.render_plain(), "");
    let servers = &loaded.config.unwrap().virtual_servers[0].real_servers;
    let addresses: Vec<_> = servers.iter().map(|server| server.at.address).collect();
    assert_eq!(addresses, ["198.51.100.1", "198.51.100.2"].map(|a| a.parse::<IpAddr>().unwrap()));
    assert!(servers[0].place.file.ends_with("d/servers"));
}

#[test]
fn an_include_of_itself_or_of_nothing_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("main.conf");
    let errors = |text: &str| {
        fs::write(&main, text).unwrap();
        let diagnostics = load(std::slice::from_ref(&main), &options()).diagnostics;
        (diagnostics.error_count(), diagnostics.warning_count())
    };
    assert_eq!(errors("include main.conf\n"), (1, 0));
    assert_eq!(errors("include missing.conf\n"), (0, 1));
    assert_eq!(errors("includem missing.conf\n"), (1, 0));
    assert_eq!(errors("include missing*.conf\n"), (0, 0));
    assert_eq!(errors("includea missing*.conf\n"), (1, 0));
    assert_eq!(errors("include\n"), (1, 0));
}

#[test]
fn the_dataplane_may_stand_in_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (main, own) = (dir.path().join("main.conf"), dir.path().join("dataplane.conf"));
    fs::write(&main, "").unwrap();
    let options = LoadOptions { dataplane_file: Some(own.clone()), ..options() };
    assert!(
        load(std::slice::from_ref(&main), &options).config.is_some_and(|config| config.dataplane.workers.is_none())
    );
    fs::write(&own, "dataplane { workers 4 }").unwrap();
    let config = load(&[main], &options).config.unwrap();
    assert_eq!(config.dataplane.workers.map(|workers| workers.count), Some(4));
}

#[test]
fn overlong_lines_and_nul_bytes_are_errors() {
    assert_eq!(messages(&format!("# {}\n", "x".repeat(1023))), ["this line has 1025 bytes"]);
    assert!(messages(&format!("# {}\n", "x".repeat(1022))).is_empty());
    assert_eq!(messages("# a\0b\n"), ["a NUL byte in a line"]);
}

#[test]
fn numbers_end_where_keepalived_ends_them() {
    let weight = |weight: &str| {
        let text = format!(
            "virtual_server 192.0.2.1 80 {{\nlb_algo rr\nlb_kind NAT\nprotocol TCP\nreal_server 192.0.2.2 80 {{ weight {weight} }}\n}}"
        );
        parse(&text).config.map(|config| config.virtual_servers[0].real_servers[0].weight.value())
    };
    assert_eq!(weight("0"), Some(0));
    assert_eq!(weight("65536"), Some(65_536));
    assert_eq!(weight("2147483647"), Some(2_147_483_647));
    for wrong in ["2147483648", "-1", "1x", "0x10", "1.5", "\"\"", "99999999999999999999999"] {
        assert_eq!(weight(wrong), None, "{wrong}");
    }
}

#[test]
fn a_group_is_one_service_with_many_addresses() {
    let text = "virtual_server_group web {\n 192.0.2.1 80\n 192.0.2.8-15 443\n 198.51.100.0/24\n fwmark 7\n}\n\
                virtual_server group web {\n protocol TCP\n lb_algo rr\n lb_kind NAT\n real_server 10.0.0.1 {\n }\n}\n";
    let config = config(text);
    let [service] = config.virtual_servers.as_slice() else { panic!("one service") };
    assert_eq!(service.name.to_string(), "TCP group web");
    let points: Vec<_> = service.points.iter().map(ToString::to_string).collect();
    assert_eq!(points, ["192.0.2.1:80", "192.0.2.8-192.0.2.15:443", "198.51.100.0-198.51.100.255:0", "fwmark 7"]);
    assert!(service.real_servers[0].at.port.is_any(), "each address keeps its port");
}

#[test]
fn a_mark_is_a_service_of_one_family() {
    let server = "lb_algo rr\n lb_kind DR\n real_server 10.0.0.1 {\n }\n}\n";
    let config = config(&format!("virtual_server fwmark 7 {{\n {server}"));
    assert_eq!(config.virtual_servers[0].name.to_string(), "FWM 7");
    let text = format!("virtual_server fwmark 7 {{\n ip_family inet6\n {}", server.replace("10.0.0.1", "fd00::1"));
    assert_eq!(self::config(&text).virtual_servers[0].name.to_string(), "FWM 7 IPv6");
    assert_eq!(
        messages(&format!("{text}virtual_server fwmark 7 {{\n {server}")),
        [""; 0],
        "two families, two services"
    );
}

#[test]
fn what_would_get_the_same_packets_twice_is_refused() {
    let service = |heading: &str| {
        format!(
            "virtual_server {heading} {{\n protocol TCP\n lb_algo rr\n lb_kind NAT\n real_server 10.0.0.1 80 {{\n }}\n}}\n"
        )
    };
    let groups = "virtual_server_group a {\n 192.0.2.1-9 80\n}\nvirtual_server_group b {\n 192.0.2.9-20 80\n}\n\
                  virtual_server_group c {\n 192.0.2.1 80\n 192.0.2.1 80\n}\nvirtual_server_group d {\n 192.0.2.1-9 443\n}\n";
    let told = |headings: &[&str]| {
        let text: String = headings.iter().map(|heading| service(heading)).collect();
        messages(&format!("{groups}{text}"))
    };
    let other = "belongs to another virtual server too";
    assert_eq!(told(&["group a", "group d", "192.0.2.10 80"]), [""; 0]);
    assert_eq!(told(&["group a", "192.0.2.9 80"]), ["the virtual server TCP 192.0.2.9:80 stands twice"]);
    assert_eq!(told(&["192.0.2.9 80", "group a"]), [format!("192.0.2.1-192.0.2.9:80 of TCP group a {other}")]);
    assert_eq!(told(&["group a", "group b"]), [format!("192.0.2.9-192.0.2.20:80 of TCP group b {other}")]);
    assert_eq!(told(&["group c"]), ["192.0.2.1:80 stands twice in TCP group c"]);
    assert_eq!(told(&["group e"]), ["there is no group `e`"]);
}

#[test]
fn both_families_in_one_group_need_tunnels() {
    let text = |kind: &str| {
        format!(
            "virtual_server_group a {{\n 192.0.2.1 80\n 2001:db8::1 80\n}}\nvirtual_server group a {{\n protocol TCP\n \
             lb_algo rr\n lb_kind {kind}\n real_server 10.0.0.1 {{\n }}\n}}\n"
        )
    };
    assert_eq!(messages(&text("TUN")), [""; 0]);
    assert_eq!(messages(&text("NAT")), ["the group a has addresses of both families"]);
}

#[test]
fn lines_of_a_group_that_mean_nothing() {
    for line in
        ["192.0.2.1 80-90", "192.0.2.9-1", "fwmark 0", "fwmark", "fwmark 7 ipv4", "224.0.0.1", "host 80", "0.0.0.0/0"]
    {
        let told = messages(&format!("virtual_server_group a {{\n {line}\n}}\n"));
        assert_eq!(told.len(), 1, "{line}: {told:?}");
    }
}

#[test]
fn bounds_on_connections_and_what_becomes_of_old_ones() {
    let config = config(
        "virtual_server 192.0.2.1 53 {\n lb_algo sh\n sh-port\n flag-1\n lb_kind DR\n protocol UDP\n ops\n drain\n \
         connection_limit 1000\n connection_rate 50 reset\n real_server 198.51.100.1 53 {\n uthreshold 100\n \
         lthreshold 80\n }\n}\ndataplane {\n expire_nodest_conn on conn_reuse_mode 3\n}\n",
    );
    let [service] = config.virtual_servers.as_slice() else { panic!("one service") };
    assert_eq!(service.scheduler, SchedulerKind::Sh(HashFlags { port: HashPort::Included, fallback: Fallback::Walk }));
    assert_eq!((service.datagrams, service.drain), (Datagrams::OneByOne, true));
    let limit = |most, refusal| Some(Limit { most, refusal });
    let limits = ConnectionLimits { flows: limit(1000, Refusal::Silence), rate: limit(50, Refusal::Reset) };
    assert_eq!((service.limits, service.real_servers[0].thresholds), (limits, Thresholds { upper: 100, lower: 80 }));
    assert!(config.dataplane.expire_nodest_conn);
    assert_eq!(config.dataplane.conn_reuse_mode, PortReuse::ClosedOrFinished);
}

#[test]
fn bounds_that_cannot_be_are_errors() {
    let with = |real: &str, service: &str| {
        let head = "virtual_server 192.0.2.1 80 {\n lb_algo wlc\n lb_kind NAT\n protocol TCP\n";
        messages(&format!("{head} {service}\n real_server 198.51.100.1 80 {{\n{real}\n }}\n}}\n"))
    };
    assert_eq!(with("uthreshold 5\n lthreshold 6", ""), ["the `lthreshold` 6 is above the `uthreshold`"]);
    assert_eq!(with("lthreshold 6", ""), ["the `lthreshold` 6 is above the `uthreshold`"]);
    assert_eq!(with("uthreshold 6\n lthreshold 6", ""), [""; 0]);
    assert_eq!(with("uthreshold many", ""), ["`many` is not a number of connections"]);
    assert_eq!(with("", "connection_limit 0"), ["number of connections 0 is out of range"]);
    assert_eq!(with("", "connection_limit"), ["`connection_limit` needs a number of connections"]);
    assert_eq!(with("", "ops"), ["`ops` does nothing in a service of TCP"]);
    assert_eq!(with("", "flag-3"), ["`flag-3` means nothing to any scheduler"]);
}

/// The one virtual server of a file with these lines in its block.
fn with(vip: &str, lines: &str) -> control::config::VirtualServer {
    let (server, kind) = if vip.contains(':') { ("2001:db8::9", "NAT") } else { ("198.51.100.1", "NAT") };
    let text = format!(
        "virtual_server {vip} {{\nprotocol TCP\nlb_algo rr\nlb_kind {kind}\n{lines}\nreal_server {server} 80 {{ }}\n}}\n"
    );
    config(&text).virtual_servers.remove(0)
}

#[test]
fn clients_may_stay_with_their_servers() {
    let of = |vip: &str, lines: &str| with(vip, lines).persistence;
    assert_eq!(of("192.0.2.1 80", ""), None);
    assert_eq!(of("192.0.2.1 80", "persistence_timeout"), Some(Persistence::new(360)));
    assert_eq!(of("192.0.2.1 80", "persistence_timeout 50"), Some(Persistence::new(50)));
    assert_eq!(of("192.0.2.1 0", ""), Some(Persistence::new(360)), "a service of every port always is");
    let mask = "255.255.255.0".parse().unwrap();
    let granular = Persistence { mask, ..Persistence::new(360) };
    assert_eq!(of("192.0.2.1 80", "persistence_granularity 255.255.255.0"), Some(granular));
    let lines = "persistence_timeout 9\npersistence_granularity 64";
    assert_eq!(of("2001:db8::1 80", lines), Some(Persistence { prefix: 64, ..Persistence::new(9) }));
}

#[test]
fn persistence_that_means_nothing_is_refused() {
    let said = |vip: &str, lines: &str| {
        messages(&format!(
            "virtual_server {vip} 80 {{\nprotocol TCP\nlb_algo rr\nlb_kind NAT\n{lines}\nreal_server {vip}9 80 {{ }}\n}}\n"
        ))
    };
    for (vip, lines, message) in [
        ("192.0.2.1", "persistence_timeout 0", "number of seconds 0 is out of range"),
        ("192.0.2.1", "persistence_timeout 2678401", "number of seconds 2678401 is out of range"),
        ("192.0.2.1", "persistence_granularity 24", "a prefix length for clients of IPv4"),
        ("192.0.2.1", "persistence_granularity 0.0.0.0", "the mask 0.0.0.0 makes all clients one"),
        ("2001:db8::1", "persistence_granularity 255.255.0.0", "a netmask for clients of IPv6"),
        ("2001:db8::1", "persistence_granularity 129", "prefix length 129 is out of range"),
    ] {
        assert_eq!(said(vip, lines), [message], "{lines}");
    }
}

#[test]
fn rules_stand_one_a_line_or_with_semicolons() {
    let text = "dataplane {\n rules {\n  deny from 10.0.0.0/8 to 192.0.2.1 tcp port 80-90\n  allow udp; rate 100 burst 20 from any port 53 ;\n\
                mark 7 to 2001:db8::/32;\n }\n rules { deny }\n deny_established on\n source_rate 50 burst 100\n}\n";
    let dataplane = config(text).dataplane;
    let rules: Vec<_> = dataplane.rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        [
            "deny from 10.0.0.0/8 to 192.0.2.1/32 tcp port 80-90",
            "allow udp",
            "rate 100 burst 20 port 53",
            "mark 7 to 2001:db8::/32",
            "deny"
        ]
    );
    assert_eq!(dataplane.rule_scope, Scope::Established);
    assert_eq!(dataplane.source_rate, Rate::new(50, 100));
}

#[test]
fn wrong_rules_are_told() {
    for (rule, message) in [
        ("forbid", "`forbid` is no rule"),
        ("deny frm 10.0.0.0/8", "`frm` is no part of a rule"),
        ("deny from 10.0.0.0/33", "`10.0.0.0/33` is neither an address nor a prefix"),
        ("deny from 10.0.0.0/8 to ::1", "no packet goes from 10.0.0.0/8 to ::1/128"),
        ("deny port 90-80", "`90-80` is neither a port nor a range of ports"),
        ("deny port", "`port` needs a port"),
        ("mark 7", "a mark needs a destination"),
        ("mark 0 to ::1", "mark 0 is out of range"),
        ("rate", "`rate` needs a number of flows a second"),
        ("rate 0", "number of flows a second 0 is out of range"),
    ] {
        assert_eq!(messages(&format!("dataplane {{\n rules {{\n  {rule}\n }}\n}}\n")), [message], "{rule}");
    }
}

#[test]
fn a_sorry_server_inherits_what_it_does_not_say() {
    let of = |lines: &str| with("192.0.2.1 80", lines).sorry_server;
    assert_eq!(of("sorry_server_inhibit"), None, "a setting without a server");
    let sorry = of("sorry_server 198.51.100.9 8080").unwrap();
    assert_eq!(
        (sorry.server.at.to_string().as_str(), sorry.server.method),
        ("198.51.100.9:8080", ForwardingMethod::Nat)
    );
    assert_eq!((sorry.server.weight.value(), sorry.inhibit), (1, false));
    let sorry = of("sorry_server 198.51.100.9 8080\nsorry_server_inhibit\nsorry_server_lvs_method DR").unwrap();
    assert_eq!((sorry.server.at.to_string().as_str(), sorry.server.method), ("198.51.100.9:80", ForwardingMethod::Dr));
    assert!(sorry.inhibit);
}

#[test]
fn lists_are_prefixes_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let server = "protocol TCP\n lb_algo rr\n lb_kind NAT\n real_server 10.0.0.1 80 {\n }\n";
    fs::write(dir.path().join("bad.txt"), "# known bad\n10.66.0.0/16 ; a net\n\n2001:db8:bad::/48\n").unwrap();
    fs::write(dir.path().join("wrong.txt"), "10.0.0.0/8\nten\n").unwrap();
    let at = dir.path().join("test.conf");
    let load_text = |list: &str| {
        fs::write(&at, format!("virtual_server 192.0.2.1 80 {{\n {list}\n {server}}}\n")).unwrap();
        load(std::slice::from_ref(&at), &options())
    };
    let loaded = load_text("blocklist bad.txt 198.51.100.7\n allowlist 10.0.0.0/8");
    let config = loaded.config.unwrap();
    let access = &config.virtual_servers[0].access;
    let blocked = access.blocked.as_ref().unwrap();
    let is_blocked = |address: &str| blocked.contains(address.parse::<IpAddr>().unwrap());
    assert!(is_blocked("10.66.1.1") && is_blocked("198.51.100.7") && is_blocked("2001:db8:bad::1"));
    assert!(!is_blocked("10.67.1.1") && access.allowed.is_some());
    for (list, said) in [
        ("blocklist wrong.txt", "line 2: `ten`"),
        ("blocklist none.txt", "No such file"),
        ("blocklist /dev/zero", "it is no file"),
        ("allowlist", "`allowlist` needs prefixes or a file"),
    ] {
        let loaded = load_text(list);
        let told = loaded.diagnostics.render_plain().replace('\n', " ");
        assert!(loaded.config.is_none() && told.contains(said), "{list}: {told}");
    }
}
