//! What arrives: the packets of all inputs, in the order of their times.

use std::collections::BTreeSet;
use std::time::Duration;

use dataplane::next_hop::Link;
use dataplane::port::capture;

use super::{Input, ReplayError};
use crate::topology::Topology;

/// One captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// When, since the epoch.
    pub(super) time: Duration,
    /// On which interface.
    pub(super) link: Link,
    /// The interface's name.
    pub(super) interface: std::sync::Arc<str>,
    /// Its place in its capture, from 0.
    pub(super) index: usize,
    /// From the Ethernet header on.
    pub(super) bytes: Vec<u8>,
}

/// Reads all inputs. Packets of the same time stand in the order of `inputs`, then of their capture.
pub(super) fn read(inputs: &[Input], topology: &Topology) -> Result<Vec<Arrival>, ReplayError> {
    let mut arrivals = Vec::new();
    let mut seen = BTreeSet::new();
    for input in inputs {
        let Some((link, _)) = topology.link_named(&input.interface) else {
            let there = topology.links.values().map(|state| state.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(ReplayError::NoInterface { name: input.interface.clone(), there });
        };
        if !seen.insert(link) {
            return Err(ReplayError::InputTwice(input.interface.clone()));
        }
        let interface: std::sync::Arc<str> = input.interface.as_str().into();
        let packets = capture::read(&input.file)?.into_iter().enumerate();
        arrivals.extend(packets.map(|(index, packet)| Arrival {
            time: packet.time,
            link,
            interface: std::sync::Arc::clone(&interface),
            index,
            bytes: packet.bytes,
        }));
    }
    arrivals.sort_by_key(|arrival| arrival.time);
    Ok(arrivals)
}
