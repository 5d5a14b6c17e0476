//! Real servers from one configuration to the next: order, numbers, drain, sorry server.

use super::*;

#[test]
fn destinations_keep_the_order_of_the_file() {
    let servers = [("10.2.0.5:1", ForwardingMethod::Dr), ("10.2.0.6:1", ForwardingMethod::Dr)];
    let run = run(&config(vec![service("10.9.0.1:1", &servers)]), MACHINE);
    let first = run.compiled.snapshot.services.iter().next().unwrap();
    // As IPVS has them: the one added last stands first.
    let at: Vec<_> = first.destinations.iter().map(|destination| destination.at).collect();
    assert_eq!(at, [endpoint("10.2.0.6:1"), endpoint("10.2.0.5:1")]);
}

#[test]
fn flows_of_a_removed_server_are_counted_to_their_end_and_its_number_is_given_again() {
    let topology = batch::parse(MACHINE).unwrap();
    let with = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    let without = config(vec![service("10.9.0.1:80", &[])]);
    let other = config(vec![service("10.9.0.1:80", &[("10.2.0.6:80", ForwardingMethod::Nat)])]);
    let Run { compiled, mut slots } = run(&with, MACHINE);
    let slot = compiled.snapshot.services.iter().next().unwrap().destinations[0].slot;
    compiled.snapshot.services.counts(slot).unwrap().begin(Activity::Active);
    let removed = compile(&without, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap();
    assert!(removed.snapshot.services.destination(slot).is_none());
    let replaced = compile(&other, &topology, &compiled.ports, &mut slots, Some(&removed)).unwrap();
    assert_ne!(replaced.snapshot.services.iter().next().unwrap().destinations[0].slot, slot);
    replaced.snapshot.services.counts(slot).unwrap().end(Activity::Active);
    assert!(slots.is_due());
    let later = compile(&other, &topology, &compiled.ports, &mut slots, Some(&replaced)).unwrap();
    assert!(Arc::ptr_eq(&replaced.snapshot.services, &later.snapshot.services), "one more look is to come");
    assert!(!slots.is_due());
    let last = compile(&with, &topology, &compiled.ports, &mut slots, Some(&later)).unwrap();
    assert_eq!(last.snapshot.services.iter().next().unwrap().destinations[0].slot, slot);
}

#[test]
fn a_removed_server_of_a_service_that_drains_stays_until_its_last_flow() {
    let topology = batch::parse(MACHINE).unwrap();
    let drained = |servers: &[(&str, ForwardingMethod)]| {
        config(vec![VirtualServer { drain: true, ..service("10.9.0.1:80", servers) }])
    };
    let both = [("10.2.0.5:80", ForwardingMethod::Nat), ("10.2.0.6:80", ForwardingMethod::Nat)];
    let (with, without) = (drained(&both), drained(&both[1..]));
    let Run { compiled, mut slots } = run(&with, MACHINE);
    let first = |compiled: &Compiled| compiled.snapshot.services.iter().next().unwrap().destinations.len();
    let slot = compiled.snapshot.services.iter().next().unwrap().destinations[1].slot;
    compiled.snapshot.services.counts(slot).unwrap().begin(Activity::Active);
    let removed = compile(&without, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap();
    let left = removed.snapshot.services.destination(slot).unwrap();
    assert_eq!((first(&removed), left.weight, left.at), (1, Weight::ZERO, endpoint("10.2.0.5:80")));
    assert!(matches!(removed.snapshot.hops.destination(slot), Hop::Neighbour { .. }));
    assert!(removed.snapshot.services.iter().all(|s| s.flows() == 1));

    let back = compile(&with, &topology, &compiled.ports, &mut slots, Some(&removed)).unwrap();
    let again = back.snapshot.services.destination(slot).unwrap();
    assert_eq!((first(&back), again.weight, again.counts.active()), (2, Weight::ONE, 1), "revived");

    let removed = compile(&without, &topology, &compiled.ports, &mut slots, Some(&back)).unwrap();
    removed.snapshot.services.counts(slot).unwrap().end(Activity::Active);
    assert!(slots.is_due());
    let over = compile(&without, &topology, &compiled.ports, &mut slots, Some(&removed)).unwrap();
    assert!(over.snapshot.services.destination(slot).is_none() && !slots.is_due());
}

#[test]
fn a_refused_configuration_lets_go_of_nothing() {
    let topology = batch::parse(MACHINE).unwrap();
    let good = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    let twice = config(vec![service("10.9.0.1:1", &[]), service("10.9.0.1:1", &[])]);
    let Run { compiled, mut slots } = run(&good, MACHINE);
    for _ in 0..3 {
        let refused = compile(&twice, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap_err();
        assert!(refused.to_string().contains("is that of another service too"), "{refused}");
    }
    assert!(!slots.is_due() && slots.iter().all(|(_, entry)| entry.standing == slots::Standing::Configured));
}

#[test]
fn ten_thousand_services_of_ten_servers_are_compiled() {
    let at = |n: usize, port: usize| format!("10.{}.{}.{}:{port}", 64 + (n >> 16), n >> 8 & 0xff, n & 0xff);
    let servers: Vec<String> = (0..10).map(|n| at(n, 80)).collect();
    let servers: Vec<_> = servers.iter().map(|at| (at.as_str(), ForwardingMethod::Tun)).collect();
    let services = (0..10_000).map(|n| service(&format!("10.9.{}.{}:80", n >> 8, n & 0xff), &servers)).collect();
    let run = run(&config(services), &format!("{MACHINE}\nroute add 10.64.0.0/10 via 10.2.0.254"));
    let slots: std::collections::BTreeSet<_> = run.slots.iter().map(|(_, entry)| entry.slot.0).collect();
    assert_eq!((slots.len(), slots.last()), (100_000, Some(&99_999)));
}

#[test]
fn what_did_not_change_is_shared() {
    let topology = batch::parse(MACHINE).unwrap();
    let config = config(vec![service("10.9.0.1:80", &[("10.2.0.9:80", ForwardingMethod::Dr)])]);
    let ports = derive_ports(&config, &topology).unwrap();
    let mut slots = SlotDirectory::new(1);
    let first = compile(&config, &topology, &ports, &mut slots, None).unwrap();
    let again = compile(&config, &topology, &ports, &mut slots, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first.snapshot.services, &again.snapshot.services));
    assert!(Arc::ptr_eq(&first.snapshot.hops, &again.snapshot.hops));
    let answered = batch::parse(&format!("{MACHINE}\nneigh add 10.2.0.9 lladdr 02:00:00:00:02:09 dev eth1")).unwrap();
    let resolved = compile(&config, &answered, &ports, &mut slots, Some(&again)).unwrap();
    assert!(Arc::ptr_eq(&first.snapshot.services, &resolved.snapshot.services));
    assert_eq!(resolved.snapshot.hops.generation(), first.snapshot.hops.generation() + 1);
    assert!(resolved.findings.is_empty(), "{:?}", resolved.findings);
    let mut heavier = config.clone();
    heavier.virtual_servers[0].real_servers[0].weight = Weight::new(3).unwrap();
    let reloaded = compile(&heavier, &answered, &ports, &mut slots, Some(&resolved)).unwrap();
    assert!(!Arc::ptr_eq(&resolved.snapshot.services, &reloaded.snapshot.services));
    assert!(Arc::ptr_eq(&resolved.snapshot.hops, &reloaded.snapshot.hops));
}

/// Address and weight of each server of a service, in the order of the file.
fn weights(run: &Run) -> Vec<(String, u32)> {
    let service = run.compiled.snapshot.services.iter().next().unwrap();
    service.destinations.iter().rev().map(|server| (server.at.to_string(), server.weight.value())).collect()
}

#[test]
fn the_sorry_server_stands_in_while_no_real_server_has_a_weight() {
    let mut one = service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)]);
    let server = service("10.9.0.1:80", &[("10.2.0.6:80", ForwardingMethod::Nat)]).real_servers.remove(0);
    for inhibit in [false, true] {
        one.sorry_server = Some(SorryServer { server: server.clone(), inhibit });
        one.real_servers[0].weight = Weight::ONE;
        let up = run(&config(vec![one.clone()]), MACHINE);
        let real = ("10.2.0.5:80".to_owned(), 1);
        let idle = ("10.2.0.6:80".to_owned(), 0);
        assert_eq!(weights(&up), if inhibit { vec![real, idle] } else { vec![real] });
        assert!(!up.told().contains("sorry"));
        one.real_servers[0].weight = Weight::ZERO;
        let down = run(&config(vec![one.clone()]), MACHINE);
        assert_eq!(weights(&down), [("10.2.0.5:80".to_owned(), 0), ("10.2.0.6:80".to_owned(), 1)]);
        assert!(down.told().contains("new connections go to the sorry server"), "{}", down.told());
    }
}

#[test]
fn a_real_server_may_be_the_sorry_server_too() {
    let mut one = service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)]);
    one.real_servers[0].weight = Weight::ZERO;
    one.sorry_server = Some(SorryServer { server: one.real_servers[0].clone(), inhibit: false });
    assert_eq!(weights(&run(&config(vec![one]), MACHINE)), [("10.2.0.5:80".to_owned(), 1)]);
}

#[test]
fn rules_that_stay_keep_what_they_remember() {
    let topology = batch::parse(MACHINE).unwrap();
    let mut config = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    config.dataplane.rules = vec![Rule { action: Action::Deny, selector: Selector::ALL }];
    config.dataplane.source_rate = Rate::new(5, 5);
    let Run { compiled, mut slots } = run(&config, MACHINE);
    let again = compile(&config, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap();
    let (before, after) = (&compiled.snapshot.gates, &again.snapshot.gates);
    assert!(Arc::ptr_eq(&before.rules, &after.rules));
    assert!(Arc::ptr_eq(before.sources.as_ref().unwrap(), after.sources.as_ref().unwrap()));
    config.dataplane.source_rate = Rate::new(6, 5);
    let changed = compile(&config, &topology, &compiled.ports, &mut slots, Some(&again)).unwrap();
    assert!(!Arc::ptr_eq(after.sources.as_ref().unwrap(), changed.snapshot.gates.sources.as_ref().unwrap()));
}
