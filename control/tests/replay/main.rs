//! Replays with expected outputs in full: packets in, the frames that leave byte by byte, and every packet's fate.
//!
//! Frames are built and read back by etherparse. No privilege is needed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bench;
mod frames;
mod ipvs;

use assert_cmd::Command;
use bench::{Bench, CLIENT4, CLIENT6, MACHINE, VIP4, VIP6, config};
use control::replay::ReplayError;
use dataplane::port::capture;
use frames::{ETH0, ETH1, Flags, GATEWAY, server_mac, tcp, tunnelled, udp};

const IN: ([u8; 6], [u8; 6]) = (GATEWAY, ETH0);
const OUT: ([u8; 6], [u8; 6]) = (ETH1, server_mac(10));

#[test]
fn nat_rewrites_both_ways_in_both_families() {
    for (client, vip, server) in [(CLIENT4, VIP4, "10.1.0.10:8080"), (CLIENT6, VIP6, "[2001:db8:1::a]:8080")] {
        let mut bench = Bench::new(&config("NAT", 8080), MACHINE);
        bench.arrive("eth0", &[(0, tcp(IN, client, vip, 64, Flags::Syn)), (2, tcp(IN, client, vip, 64, Flags::Ack))]);
        bench.arrive("eth1", &[(1, tcp((server_mac(10), ETH1), server, client, 64, Flags::SynAck))]);
        let outcome = bench.run();
        let to_server = [Flags::Syn, Flags::Ack].map(|flags| tcp(OUT, client, server, 63, flags));
        assert_eq!(outcome.frames("eth1"), to_server);
        assert_eq!(outcome.frames("eth0"), [tcp((ETH0, GATEWAY), vip, client, 63, Flags::SynAck)]);
        let fate = outcome.fate(1);
        assert_eq!((&fate["port"], &fate["index"], &fate["fate"]), (&"eth1".into(), &0.into(), &"forwarded".into()));
        assert_eq!((&fate["to"], &fate["output_index"]), (&"eth0".into(), &0.into()));
        assert_eq!(fate["time"], "1700000000.001000000");
        assert_eq!(fate["flow"]["service"], format!("TCP {vip}"));
        assert_eq!(fate["flow"]["server"], server);
        assert_eq!(fate["flow"]["direction"], "to_client");
        assert_eq!(outcome.event("flow_created"), 1);
        let destination = outcome.result["services"].as_array().unwrap().iter();
        let destination = destination.map(|s| &s["destinations"][0]).find(|d| d["server"] == server).unwrap();
        assert_eq!((&destination["active"], &destination["inbound"]["packets"]), (&1.into(), &2.into()));
    }
}

#[test]
fn dr_changes_the_ethernet_addresses_and_nothing_behind_ttl() {
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        let mut bench = Bench::new(&config("DR", 80), MACHINE);
        bench.arrive("eth0", &[(0, tcp(IN, client, vip, 64, Flags::Syn))]);
        let outcome = bench.run();
        assert_eq!(outcome.frames("eth1"), [tcp(OUT, client, vip, 63, Flags::Syn)]);
        assert!(outcome.frames("eth0").is_empty());
    }
}

#[test]
fn tun_puts_a_header_in_front_in_both_families() {
    let ends = [(CLIENT4, VIP4, "10.1.0.1", "10.1.0.10"), (CLIENT6, VIP6, "2001:db8:1::1", "2001:db8:1::a")];
    for (client, vip, from, to) in ends {
        let mut bench = Bench::new(&config("TUN", 80), MACHINE);
        bench.arrive("eth0", &[(0, tcp(IN, client, vip, 64, Flags::Syn))]);
        let outcome = bench.run();
        let inner = tcp(OUT, client, vip, 63, Flags::Syn);
        let left = outcome.frames("eth1");
        // The identification of an IPv4 header is the director's to choose; the rest is given.
        let id = if from.contains(':') { 0 } else { u16::from_be_bytes([left[0][18], left[0][19]]) };
        assert_eq!(left, [tunnelled(OUT, from, to, id, &inner)]);
    }
}

#[test]
fn datagrams_are_flows_too() {
    let config = "static_ipaddress {\n 203.0.113.80/32 dev eth0\n}\nvirtual_server 203.0.113.80 53 {\n lb_algo rr\n \
                  lb_kind NAT\n protocol UDP\n real_server 10.1.0.10 5353 {\n weight 1\n }\n}\n";
    let mut bench = Bench::new(config, MACHINE);
    bench.arrive("eth0", &[(0, udp(IN, CLIENT4, "203.0.113.80:53", 64))]);
    bench.arrive("eth1", &[(1, udp((server_mac(10), ETH1), "10.1.0.10:5353", CLIENT4, 64))]);
    let outcome = bench.run();
    assert_eq!(outcome.frames("eth1"), [udp(OUT, CLIENT4, "10.1.0.10:5353", 63)]);
    assert_eq!(outcome.frames("eth0"), [udp((ETH0, GATEWAY), "203.0.113.80:53", CLIENT4, 63)]);
}

#[test]
fn every_drop_has_its_reason_and_what_answered_it() {
    let mut bench = Bench::new(&config("NAT", 8080).replace("weight 1", "weight 0"), MACHINE);
    let mut cut = tcp(IN, CLIENT4, VIP4, 64, Flags::Ack);
    cut.truncate(40);
    bench.arrive(
        "eth0",
        &[
            (0, tcp(IN, CLIENT4, VIP4, 64, Flags::Syn)),
            (1, tcp(IN, CLIENT4, VIP4, 64, Flags::Ack)),
            (2, cut),
            (3, tcp(IN, "198.51.100.7:40001", VIP4, 64, Flags::Reset)),
        ],
    );
    let outcome = bench.run();
    for (n, reason) in ["no_destination", "no_flow", "truncated", "no_flow"].iter().enumerate() {
        assert_eq!(outcome.fate(n)["fate"], "dropped", "{}", outcome.fate(n));
        assert_eq!(outcome.fate(n)["reason"], *reason);
        assert!(outcome.fate(n)["description"].as_str().unwrap().len() > 10);
    }
    assert_eq!((outcome.drops("no_flow"), outcome.drops("truncated"), outcome.drops("bad_checksum")), (2, 1, 0));
    // The segment of no flow was answered by a reset, the reset was not.
    assert_eq!(outcome.event("reset_sent"), 1);
    let answer = &outcome.fate(1)["answers"][0];
    let reset = &outcome.frames("eth0")[answer["output_index"].as_u64().unwrap() as usize];
    assert_eq!((reset[..6].to_vec(), reset[14 + 20 + 13] & 0x04), (GATEWAY.to_vec(), 0x04));
    assert!(outcome.fate(3).get("answers").is_none());
    assert_eq!(outcome.summary.fates["no_flow"], 2);
}

#[test]
fn what_steering_would_pass_is_the_kernels() {
    let mut bench = Bench::new(&config("NAT", 8080), MACHINE);
    let mut stranger = tcp(IN, CLIENT4, VIP4, 64, Flags::Syn);
    stranger[5] = 0x99;
    bench.arrive(
        "eth0",
        &[
            (0, tcp(IN, CLIENT4, "203.0.113.80:22", 64, Flags::Syn)),
            (1, stranger),
            (2, [&[0xff; 6][..], &GATEWAY, &[0x08, 0x06], &[0; 46]].concat()),
        ],
    );
    // A server's answer that belongs to no flow is caught, for it might; nobody claims it, so the kernel gets it.
    bench.arrive("eth1", &[(3, tcp((server_mac(10), ETH1), "10.1.0.10:8080", CLIENT4, 64, Flags::SynAck))]);
    let outcome = bench.run();
    for (n, verdict) in ["passed_miss", "passed_not_ours", "passed_not_ours"].iter().enumerate() {
        let fate = outcome.fate(n);
        assert_eq!(
            (&fate["fate"], &fate["by"], &fate["verdict"]),
            (&"kernel".into(), &"steering".into(), &(*verdict).into())
        );
        assert_eq!(fate["description"], "passed to kernel (steering)");
    }
    assert_eq!((&outcome.fate(3)["fate"], &outcome.fate(3)["by"]), (&"kernel".into(), &"kernel_port".into()));
    assert_eq!(outcome.frames("sluice0").len(), 1);
    assert_eq!(outcome.result["counters"]["steering"]["hit_reply"], 1);
}

#[test]
fn flows_end_in_the_pauses_of_a_capture() {
    let syn = || tcp(IN, CLIENT4, VIP4, 64, Flags::Syn);
    let mut bench = Bench::new(&config("NAT", 8080), MACHINE);
    // IPVS forgets a half-open connection after a minute.
    bench.arrive("eth0", &[(0, syn()), (30_000, syn()), (200_000, tcp(IN, CLIENT4, VIP4, 64, Flags::Ack))]);
    let outcome = bench.run();
    assert_eq!((outcome.event("flow_created"), outcome.event("flow_expired")), (1, 1));
    assert_eq!(outcome.fate(2)["reason"], "no_flow");
}

#[test]
fn the_same_inputs_give_the_same_outputs_on_one_worker_and_flows_are_shared_by_several() {
    let run = |workers| {
        let two = "real_server 10.1.0.10 8080 {\n weight 1\n }\n real_server 10.1.0.11 8080 {\n weight 2\n }";
        let text = config("NAT", 8080).replace("real_server 10.1.0.10 8080 {\n weight 1\n }", two);
        let mut bench = Bench::new(&text.replace("lb_algo rr", "lb_algo wrr"), MACHINE);
        bench.workers = workers;
        let clients: Vec<String> = (0..30).map(|n| format!("198.51.100.7:{}", 41_000 + n)).collect();
        let packets = clients.iter().flat_map(|client| {
            [(0, tcp(IN, client, VIP4, 64, Flags::Syn)), (1, tcp(IN, client, VIP4, 64, Flags::Ack))]
        });
        bench.arrive("eth0", &packets.collect::<Vec<_>>());
        let outcome = bench.run();
        let servers = outcome.result["services"][0]["destinations"].as_array().unwrap();
        let connections: Vec<u64> = servers.iter().map(|s| s["connections"].as_u64().unwrap()).collect();
        assert_eq!(connections, [10, 20]);
        assert_eq!(outcome.event("forwarded"), 60);
        (outcome.frames("eth1"), outcome.result.to_string())
    };
    assert_eq!(run(1), run(1));
    run(3);
}

#[test]
fn bad_inputs_are_errors_that_say_where() {
    let good = || Bench::new(&config("NAT", 8080), MACHINE);
    let mut bench = good();
    bench.arrive_file("eth0", b"this is no capture at all");
    let error = bench.error();
    assert!(matches!(error, ReplayError::Capture(_)));
    assert!(error.to_string().contains("in-eth0.pcap: is neither a pcap nor a pcapng file"), "{error}");

    let mut whole = capture::CaptureWriter::new(Vec::new()).unwrap();
    whole.write(bench::EPOCH, &tcp(IN, CLIENT4, VIP4, 64, Flags::Syn)).unwrap();
    let whole = whole.finish().unwrap();
    for length in [0, 3, 10, 23, 25, 40, whole.len() - 1] {
        let mut bench = good();
        bench.arrive_file("eth0", &whole[..length]);
        assert!(matches!(bench.error(), ReplayError::Capture(_)), "{length} bytes");
    }

    let mut bench = good();
    bench.arrive("eth7", &[]);
    assert!(
        bench.error().to_string().contains("no interface of this name; it has lo, eth0, eth1"),
        "{}",
        bench.error()
    );

    let bench = Bench::new("virtual_server 203.0.113.80 70000 {\n", MACHINE);
    assert!(bench.error().to_string().contains("sluice.conf"), "{}", bench.error());

    let bench = Bench::new(&config("NAT", 8080), "link add eth0\nlink eth1\n");
    assert!(bench.error().to_string().contains("line 2"), "{}", bench.error());
}

#[test]
fn the_command_writes_its_results_and_says_what_became_of_the_packets() {
    let mut bench = Bench::new(&config("NAT", 8080), MACHINE);
    bench.arrive("eth0", &[(0, tcp(IN, CLIENT4, VIP4, 64, Flags::Syn)), (1, tcp(IN, CLIENT4, VIP4, 1, Flags::Ack))]);
    let command = |input: &str| {
        let mut command = Command::cargo_bin("sluice").unwrap();
        command.arg("replay").arg("-c").arg(bench.path("sluice.conf")).arg("--topology").arg(bench.path("machine.txt"));
        command.arg("--in").arg(format!("eth0={}", bench.path(input).display()));
        command.arg("--out-dir").arg(bench.path("out")).assert()
    };
    let output = command("in-eth0.pcap").success();
    let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
    assert!(text.contains("2 packets") && text.contains("1  forwarded"), "{text}");
    assert!(text.contains("1  dropped: ttl_exceeded"), "{text}");
    assert!(bench.path("out/result.json").exists());
    let output = command("absent.pcap").code(1);
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("absent.pcap: No such file"), "{text}");
}
