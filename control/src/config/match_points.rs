//! Whether two virtual servers would get the same packets.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use dataplane::ident::{NetPort, Protocol};
use dataplane::service::{AddressFamily, Mark, MatchPoint};

use super::source::Place;

/// The match points so far, each with the place of its virtual server.
#[derive(Default)]
pub(super) struct MatchPoints {
    // By the first address; they do not overlap.
    ranges: BTreeMap<(Protocol, NetPort, IpAddr), (IpAddr, Place)>,
    marks: HashMap<(Mark, AddressFamily), Place>,
}

impl MatchPoints {
    /// Takes a point in, or tells where one that overlaps with it stands.
    pub(super) fn add(&mut self, point: MatchPoint, place: &Place) -> Result<(), Place> {
        match point {
            MatchPoint::Mark(mark, family) => {
                if let Some(first) = self.marks.get(&(mark, family)) {
                    return Err(first.clone());
                }
                self.marks.insert((mark, family), place.clone());
            }
            MatchPoint::Addresses { protocol, range, port } => {
                let below = self.ranges.range(..=(protocol, port, range.last)).next_back();
                if let Some((key, (last, first))) = below
                    && (key.0, key.1) == (protocol, port)
                    && *last >= range.first
                {
                    return Err(first.clone());
                }
                self.ranges.insert((protocol, port, range.first), (range.last, place.clone()));
            }
        }
        Ok(())
    }
}
