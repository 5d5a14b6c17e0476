//! What the flow table costs the fuller it is: inserts, lookups that hit and lookups that miss, from 10 % to 95 %.
//!
//! The table alone, without packets; lookups go by bursts of 64 with their buckets prefetched, as the worker's do.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::clock::Tick;
use dataplane::flow::{self, Capacity, FlowKey, FlowTable, FlowWorker, Insert, Mapping, NewFlow, Storage, V4, V6};
use dataplane::ident::{NetPort, Protocol, WorkerIndex};
use dataplane::port::BURST;

use crate::drive::pin;
use crate::error::BenchError;
use crate::limit::Limit;
use crate::loop_ports::random;
use crate::measure::Stopwatch;
use crate::packets::{CLIENTS_V6, Family, Peer};
use crate::plan::Plan;
use crate::results::{Measured, Row};

/// Where the table is looked at, in per cent of its capacity.
const LEVELS: [u32; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 95];
/// Lookups at each level, at least; in a small table fewer, a few for each flow.
const LOOKUPS: u64 = 1_000_000;
const LOOKUPS_PER_FLOW: u64 = 10;

/// Measures a table for the plan's number of flows, two keys each, with the plan's first core.
///
/// # Errors
/// When the memory cannot be had.
pub(crate) fn run(plan: &Plan) -> Result<Measured, BenchError> {
    pin(plan.cores.first().copied().unwrap_or(0))?;
    let capacity = Capacity { flows: plan.flows, extensions: 0 };
    let rows = match plan.family {
        Family::V4 => Filling { table: FlowTable::<V4>::anonymous(capacity, 1)?, plan, key: key_v4 }.levels(),
        Family::V6 => Filling { table: FlowTable::<V6>::anonymous(capacity, 1)?, plan, key: key_v6 }.levels(),
    };
    Ok(Measured { rows: rows?, warnings: Vec::new() })
}

/// A table that is being filled. `key` makes the two keys of a flow.
struct Filling<'p, F: flow::Family> {
    table: FlowTable<F>,
    plan: &'p Plan,
    key: fn(u32) -> [FlowKey<F::Addr>; 2],
}

impl<F: flow::Family> Filling<'_, F>
where
    Mapping<F>: Storage<F, 8>,
{
    fn levels(&self) -> Result<Vec<Row>, BenchError> {
        let mut worker = self.table.register(WorkerIndex(0)).ok_or(BenchError::NoWorker(0))?;
        let mut limit = Limit::new(self.plan.family, self.plan.flows).map_err(BenchError::Memory)?;
        let (mut from, mut rows) = (0, Vec::new());
        for level in LEVELS {
            let to = (u64::from(self.plan.flows) * u64::from(level) / 100) as u32;
            // The last hundredth before the level is timed, so that the cost is that of the level.
            let timed = to - (self.plan.flows / 100).clamp(1, to - from);
            let refused = self.insert(&mut worker, from..timed);
            let mut watch = Stopwatch::new()?;
            let mut next = timed;
            let mut refused_last = 0;
            watch.repeat(u64::MAX, || {
                let burst = next..to.min(next + BURST as u32);
                next = burst.end;
                refused_last += self.insert(&mut worker, burst.clone());
                burst.len()
            });
            let insert = watch.cost().ok_or(BenchError::NoWorker(0))?;
            let [hit, miss] = [0..to, to..to.saturating_mul(2)].map(|range| self.look_up(&range));
            let mut memory = Stopwatch::new()?;
            memory.repeat(self.lookups(), || limit.turn());
            rows.push(
                Row::default()
                    .with("flows", to)
                    .with("filled_percent", level)
                    .with("insert_ns", insert.median)
                    .with("hit_ns", hit?)
                    .with("miss_ns", miss?)
                    .with("memory_limit_ns", memory.cost().map_or(0.0, |cost| cost.median))
                    .with("refused", refused + refused_last),
            );
            from = to;
        }
        Ok(rows)
    }

    fn lookups(&self) -> u64 {
        LOOKUPS.min(u64::from(self.plan.flows) * LOOKUPS_PER_FLOW)
    }

    /// Inserts flows. How many found no place.
    fn insert(&self, worker: &mut FlowWorker<F>, flows: std::ops::Range<u32>) -> u32 {
        let mut refused = 0;
        for flow in flows {
            let [forward, reverse] = (self.key)(flow);
            let new = NewFlow {
                forward,
                reverse: Some(reverse),
                destination: 0,
                state: 0,
                flags: 0,
                deadline: Tick::new(1 << 30),
                client_mac: None,
                return_hop: 0,
                extension: None,
                controller: None,
            };
            refused += u32::from(!matches!(self.table.insert(worker, &new), Insert::Created(_)));
        }
        self.table.quiesce(worker);
        refused
    }

    /// Nanoseconds for a lookup of a flow of a range, drawn at random.
    fn look_up(&self, range: &std::ops::Range<u32>) -> Result<f64, BenchError> {
        let mut state = 1;
        let mut watch = Stopwatch::new()?;
        watch.repeat(self.lookups(), || {
            let keys: [_; BURST] =
                std::array::from_fn(|_| F::pack(&(self.key)(range.start + random(&mut state, range.len()) as u32)[0]));
            let mut probes: [_; BURST] = std::array::from_fn(|n| self.table.aim(&keys[n]));
            for probe in &mut probes {
                self.table.probe(probe);
            }
            let found = keys.iter().zip(&probes).filter(|(key, probe)| self.table.likely(key, probe).is_some()).count();
            black_box(found);
            BURST
        });
        Ok(watch.cost().ok_or(BenchError::NoWorker(0))?.median)
    }
}

fn key_v4(flow: u32) -> [FlowKey<Ipv4Addr>; 2] {
    let peer = Peer::client(Family::V4, flow);
    keys(
        Ipv4Addr::from_bits(peer.host),
        Ipv4Addr::new(192, 0, 2, 1),
        Ipv4Addr::new(10, 1, 0, 10 + (flow % 10) as u8),
        peer.port,
    )
}

fn key_v6(flow: u32) -> [FlowKey<Ipv6Addr>; 2] {
    let peer = Peer::client(Family::V6, flow);
    let client = Ipv6Addr::from_bits(CLIENTS_V6.to_bits() + u128::from(peer.host));
    let vip = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1);
    keys(client, vip, Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 10 + (flow % 10) as u16), peer.port)
}

fn keys<A: Copy>(client: A, vip: A, server: A, port: u16) -> [FlowKey<A>; 2] {
    let (port, protocol) = (NetPort::new(port), Protocol::Tcp);
    let key = |source, destination, source_port, destination_port| FlowKey {
        source,
        destination,
        source_port,
        destination_port,
        protocol,
    };
    [key(client, vip, port, NetPort::new(80)), key(server, client, NetPort::new(8080), port)]
}
