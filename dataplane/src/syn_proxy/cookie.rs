//! SYN cookies: what the answer to a SYN promised, kept in its sequence number (and its time stamp).
//!
//! A `SipHash-2-4` of the service, the client and its sequence number under a secret gives 64 bits. Its lower half, with the
//! 13 bits below laid over it by exclusive or, is the sequence number of the answer; its upper half, plus a clock of
//! milliseconds, is the `TSval`. Each secret is in use for 82 s and accepted for as long again.
//!
//! | bits  | what                                                                          |
//! |-------|-------------------------------------------------------------------------------|
//! | 0–3   | the client's window scale, 15: none                                           |
//! | 4–6   | the largest of eight sizes (by family) that the client's MSS is no less than  |
//! | 7     | selective acknowledgements were agreed on                                     |
//! | 8–11  | the window scale that the client was told, 15: none                           |
//! | 12    | time stamps were agreed on                                                    |
//! | 13–31 | zero: nothing but the hash                                                    |
//!
//! Bits 8–12 may only be what the director offered lately and what the acknowledgement itself shows, so a number drawn
//! blindly is taken with a probability of 2^-23 (2^-22 in the minutes after an offer changed), and where time stamps
//! were agreed on, with 2^-37: the echo has to fit the clock too.

#![allow(clippy::inline_always, reason = "answers stay in registers: what goes through memory in pieces waits there")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use siphasher::sip::SipHasher24;

use super::segment::Options;
use crate::clock::Tick;
use crate::ident::{Endpoint, NetPort};
use crate::siphash::Hash;

/// Ticks in a period, as a power of two: 8192, that is 81.92 s. Periods wrap together with ticks.
const PERIOD_BITS: u32 = 13;
/// Milliseconds in which a time stamp of ours may come back: two periods.
const LONGEST_ECHO: u32 = (2 * 10) << PERIOD_BITS;
/// "None" in the four bits of a window scale.
const NO_SCALE: u32 = 15;
/// The bits that hold nothing but the hash.
const HASH_ONLY: u32 = !0x1fff;

/// Sizes that a client's MSS is rounded down to: usual ones with less and less taken off by tunnels, and jumbo frames.
const SIZES_V4: [u16; 8] = [88, 536, 1200, 1360, 1400, 1440, 1460, 8960];
/// The same for IPv6.
const SIZES_V6: [u16; 8] = [88, 536, 1220, 1360, 1400, 1420, 1440, 8940];

/// Which of eight sizes an MSS is rounded down to, by its fourth: one load, no jump that depends on the client.
struct Places([u8; Self::FOURTHS]);

static PLACES_V4: Places = Places::new(&SIZES_V4);
static PLACES_V6: Places = Places::new(&SIZES_V6);

impl Places {
    /// The largest size is the last.
    const FOURTHS: usize = 8960 / 4 + 1;

    /// Of sizes that rise and are divisible by 4.
    const fn new(sizes: &[u16; 8]) -> Self {
        let mut places = [0; Self::FOURTHS];
        let (mut place, mut fourth) = (0, 0);
        while fourth < Self::FOURTHS {
            while place < 7 && sizes[place + 1] as usize <= 4 * fourth {
                assert!(sizes[place + 1].is_multiple_of(4), "only fourths are told apart");
                place += 1;
            }
            places[fourth] = place as u8;
            fourth += 1;
        }
        Self(places)
    }

    #[inline]
    fn of(&self, mss: u16) -> u8 {
        let fourth = usize::from(mss / 4).min(Self::FOURTHS - 1);
        self.0.get(fourth).copied().unwrap_or(0)
    }
}

/// The secret that those of all periods are made from.
#[derive(Clone, Copy)]
pub struct Secret(pub [u64; 2]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// The two secrets that are valid now, as one worker keeps them.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    secret: Secret,
    period: u32,
    now: Tick,
    current: Secret,
    previous: Secret,
}

/// Cookies of one service at one moment, as far as its clients have no part in them.
#[derive(Clone, Copy)]
pub struct Begun {
    hash: Hash,
    milliseconds: u32,
}

/// A client, its address as words whose lowest byte comes first: as it is in a packed key.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    /// Of IPv4.
    V4(u32, NetPort),
    /// Of IPv6.
    V6([u64; 2], NetPort),
}

impl Client {
    /// Its address.
    #[inline]
    pub fn address(self) -> IpAddr {
        match self {
            Self::V4(address, _) => Ipv4Addr::from(address.to_le_bytes()).into(),
            Self::V6([a, b], _) => Ipv6Addr::from((u128::from(a) | u128::from(b) << 64).to_le_bytes()).into(),
        }
    }
}

impl From<Endpoint> for Client {
    #[inline]
    fn from(Endpoint { address, port }: Endpoint) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(word_v4(address), port),
            IpAddr::V6(address) => Self::V6(words_v6(address), port),
        }
    }
}

/// A connection that a client wants to open.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// The client.
    pub client: Endpoint,
    /// The service.
    pub service: Endpoint,
    /// The sequence number of the client's SYN.
    pub sequence: u32,
}

/// What client and director agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The largest segment that the client takes, rounded down, in bytes.
    pub mss: u16,
    /// The client's window scale and the one that it was told; `None` when windows are not scaled.
    pub scales: Option<(u8, u8)>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Time stamps.
    pub timestamps: bool,
}

/// The numbers of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The sequence number.
    pub sequence: u32,
    /// The `TSval`, for an agreement with time stamps.
    pub timestamp: u32,
}

impl Cookies {
    /// Those of a moment.
    pub fn new(secret: Secret, now: Tick) -> Self {
        let period = period(now);
        let before = period.wrapping_sub(1) & (u32::MAX >> PERIOD_BITS);
        Self { secret, period, now, current: derived(secret, period), previous: derived(secret, before) }
    }

    /// Moves on to `now`.
    #[inline]
    pub fn turn(&mut self, now: Tick) {
        self.now = now;
        if period(now) != self.period {
            *self = Self::new(self.secret, now);
        }
    }

    /// The part in the answers of a service that is the same for all of its clients.
    #[inline]
    pub fn begin(&self, service: Endpoint) -> Begun {
        Begun { hash: begun(self.current, service), milliseconds: milliseconds(self.now) }
    }

    /// The numbers of the answer to a SYN.
    #[inline]
    pub fn make(&self, connection: &Connection, agreement: Agreement) -> Cookie {
        self.begin(connection.service).make(connection.client.into(), connection.sequence, agreement)
    }

    /// What was agreed on with a client that acknowledges `sequence` and, with time stamps, echoes `echo`; `None` when
    /// the director did not answer so within the last two periods. `offered`: the window scales that clients were
    /// told lately.
    pub fn check(
        &self,
        connection: &Connection,
        sequence: u32,
        echo: Option<u32>,
        offered: [Option<u8>; 2],
    ) -> Option<Agreement> {
        [self.current, self.previous].into_iter().find_map(|secret| {
            let hash = ended(begun(secret, connection.service), connection.client.into(), connection.sequence);
            let agreement = unpack(sequence ^ hash as u32, connection.client.address.is_ipv4())?;
            if agreement.timestamps != echo.is_some() {
                return None;
            }
            if let Some((_, told)) = agreement.scales
                && !offered.contains(&Some(told))
            {
                return None;
            }
            let age = |echo: u32| milliseconds(self.now).wrapping_sub(echo.wrapping_sub((hash >> 32) as u32));
            echo.is_none_or(|echo| age(echo) <= LONGEST_ECHO).then_some(agreement)
        })
    }
}

impl Begun {
    /// The numbers of the answer to a client whose SYN has this sequence number.
    #[inline(always)]
    pub fn make(&self, client: Client, sequence: u32, agreement: Agreement) -> Cookie {
        let hash = ended(self.hash, client, sequence);
        Cookie {
            sequence: hash as u32 ^ pack(agreement, matches!(client, Client::V4(..))),
            timestamp: self.milliseconds.wrapping_add((hash >> 32) as u32),
        }
    }
}

const fn period(now: Tick) -> u32 {
    now.raw() >> PERIOD_BITS
}

/// A clock of milliseconds that wraps with the ticks.
pub const fn milliseconds(now: Tick) -> u32 {
    now.raw().wrapping_mul(1000 / Tick::PER_SECOND)
}

fn derived(Secret([k0, k1]): Secret, period: u32) -> Secret {
    let hasher = SipHasher24::new_with_keys(k0, k1);
    let half = |n: u8| {
        let [a, b, c, d] = period.to_le_bytes();
        hasher.hash(&[a, b, c, d, n])
    };
    Secret([half(0), half(1)])
}

/// The hash of connections to a service, without the client's part, which goes last.
#[inline]
fn begun(Secret(key): Secret, service: Endpoint) -> Hash {
    let port = u64::from(u16::from_le_bytes(service.port.to_wire()));
    let hash = Hash::new(key);
    match service.address {
        IpAddr::V4(address) => hash.and([u64::from(word_v4(address)) | port << 32]),
        IpAddr::V6(address) => hash.and(words_v6(address)).and([port]),
    }
}

/// That hash with the client's part. Inputs of the two families differ in length.
#[inline(always)]
fn ended(begun: Hash, client: Client, sequence: u32) -> u64 {
    let sequence = u64::from(sequence);
    let of = |port: NetPort| u64::from(u16::from_le_bytes(port.to_wire()));
    match client {
        Client::V4(address, port) => begun.and([u64::from(address) | sequence << 32]).end(of(port), 2),
        Client::V6(address, port) => begun.and(address).end(sequence | of(port) << 32, 6),
    }
}

#[inline]
fn word_v4(address: Ipv4Addr) -> u32 {
    u32::from_le_bytes(address.octets())
}

#[inline]
fn words_v6(address: Ipv6Addr) -> [u64; 2] {
    let bits = u128::from_le_bytes(address.octets());
    [bits as u64, (bits >> 64) as u64]
}

const fn sizes(is_v4: bool) -> &'static [u16; 8] {
    if is_v4 { &SIZES_V4 } else { &SIZES_V6 }
}

#[inline(always)]
fn pack(agreement: Agreement, is_v4: bool) -> u32 {
    let (client, told) = match agreement.scales {
        Some((client, told)) => (u32::from(client.min(14)), u32::from(told.min(14))),
        None => (NO_SCALE, NO_SCALE),
    };
    let size = u32::from(if is_v4 { PLACES_V4.of(agreement.mss) } else { PLACES_V6.of(agreement.mss) });
    client | size << 4 | u32::from(agreement.sack) << 7 | told << 8 | u32::from(agreement.timestamps) << 12
}

fn unpack(word: u32, is_v4: bool) -> Option<Agreement> {
    if word & HASH_ONLY != 0 {
        return None;
    }
    let scales = match (word & 0xf, word >> 8 & 0xf) {
        (NO_SCALE, NO_SCALE) => None,
        (NO_SCALE, _) | (_, NO_SCALE) => return None,
        (client, told) => Some((client as u8, told as u8)),
    };
    let mss = *sizes(is_v4).get((word >> 4 & 7) as usize)?;
    Some(Agreement { mss, scales, sack: word & 1 << 7 != 0, timestamps: word & 1 << 12 != 0 })
}

/// What a client asks for and the servers have.
#[inline]
pub fn agree(client: &Options, offer: &Options) -> Agreement {
    // Without the option: RFC 9293 section 3.7.1, RFC 8200's minimum where it is known to fit.
    let mss = client.mss.unwrap_or(536);
    Agreement {
        mss,
        scales: client.window_scale.zip(offer.window_scale),
        sack: client.sack && offer.sack,
        timestamps: client.timestamps.is_some() && offer.timestamps.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Ticks;

    const SECRET: Secret = Secret([1, 2]);

    fn connection(is_v4: bool) -> Connection {
        let at = |v4: &str, v6: &str, port| Endpoint {
            address: if is_v4 { v4 } else { v6 }.parse().unwrap(),
            port: NetPort::new(port),
        };
        Connection {
            client: at("198.51.100.7", "2001:db8:c::7", 40_000),
            service: at("192.0.2.80", "2001:db8::80", 80),
            sequence: 77,
        }
    }

    fn usual() -> Agreement {
        Agreement { mss: 1440, scales: Some((7, 9)), sack: true, timestamps: true }
    }

    #[test]
    fn an_answer_is_known_again_for_one_to_two_periods() {
        // Also where ticks, and with them periods, wrap.
        for start in [0, 5_000_000, u32::MAX - 100].map(Tick::new) {
            for is_v4 in [true, false] {
                let (connection, agreement) = (connection(is_v4), usual());
                let mut cookies = Cookies::new(SECRET, start);
                let cookie = cookies.make(&connection, agreement);
                let mut check = |later: u32| {
                    cookies.turn(start.after(Ticks(later)));
                    cookies.check(&connection, cookie.sequence, Some(cookie.timestamp), [None, Some(9)])
                };
                for later in [0, 100, 8191] {
                    assert_eq!(check(later), Some(agreement), "{later} ticks later");
                }
                assert_eq!(check(2 * 8192), None);
            }
        }
    }

    #[test]
    fn nothing_but_the_answer_itself_is_taken() {
        let (connection, agreement) = (connection(true), usual());
        let cookies = Cookies::new(SECRET, Tick::new(9_000_000));
        let cookie = cookies.make(&connection, agreement);
        let check = |connection: &Connection, sequence, echo, offered| {
            cookies.check(connection, sequence, echo, [Some(offered), None])
        };
        let (sequence, echo) = (cookie.sequence, Some(cookie.timestamp));
        assert_eq!(check(&connection, sequence, echo, 9), Some(agreement));
        assert_eq!(check(&connection, sequence, echo, 8), None, "a window scale that nobody was told");
        assert_eq!(check(&connection, sequence, None, 9), None, "without the time stamp that was agreed on");
        assert_eq!(check(&connection, sequence, Some(cookie.timestamp.wrapping_add(20)), 9), None, "from the future");
        for bit in 13..32 {
            assert_eq!(check(&connection, sequence ^ 1 << bit, echo, 9), None);
        }
        let other = Connection { sequence: 78, ..connection };
        assert_eq!(check(&other, sequence, echo, 9), None);
        let port = NetPort::new(40_001);
        let other = Connection { client: Endpoint { port, ..connection.client }, ..connection };
        assert_eq!(check(&other, sequence, echo, 9), None);
        let foreign = Cookies::new(Secret([1, 3]), Tick::new(9_000_000));
        assert_eq!(foreign.check(&connection, sequence, echo, [Some(9), None]), None);
    }

    #[test]
    fn a_number_drawn_blindly_is_taken_as_rarely_as_the_page_says() {
        let cookies = Cookies::new(SECRET, Tick::new(9_000_000));
        let connection = connection(true);
        // Every number there is would be 2^32: a part of them, evenly spread.
        let step = 1021;
        let taken = (0..u32::MAX / step / 64)
            .filter(|n| cookies.check(&connection, n.wrapping_mul(step * 64 + 1), None, [Some(9), None]).is_some())
            .count();
        assert!(taken <= 2, "{taken} of 65 728, where 0.008 are expected");
    }

    #[test]
    fn every_size_is_the_largest_that_is_no_larger() {
        for (places, sizes) in [(&PLACES_V4, &SIZES_V4), (&PLACES_V6, &SIZES_V6)] {
            for mss in 0..=u16::MAX {
                let fitting = sizes.iter().filter(|size| **size <= mss).count();
                assert_eq!(usize::from(places.of(mss)), fitting.saturating_sub(1), "{mss}");
            }
        }
    }

    #[test]
    fn sizes_are_rounded_down_by_family() {
        let cookies = Cookies::new(SECRET, Tick::new(0));
        for (is_v4, mss, told) in [(true, 1459, 1440), (true, 65_535, 8960), (true, 20, 88), (false, 1440, 1440)] {
            let connection = connection(is_v4);
            let agreement = Agreement { mss, scales: None, sack: false, timestamps: false };
            let cookie = cookies.make(&connection, agreement);
            let read = cookies.check(&connection, cookie.sequence, None, [None, None]);
            assert_eq!(read, Some(Agreement { mss: told, ..agreement }));
        }
    }

    proptest! {
        #[test]
        fn what_was_agreed_on_comes_back(
            now in any::<u32>(),
            sequence in any::<u32>(),
            is_v4 in any::<bool>(),
            scales in prop::option::of((0u8..15, 0u8..15)),
            size in 0usize..8,
            sack in any::<bool>(),
            timestamps in any::<bool>(),
        ) {
            let connection = Connection { sequence, ..connection(is_v4) };
            let agreement = Agreement { mss: sizes(is_v4)[size], scales, sack, timestamps };
            let cookies = Cookies::new(SECRET, Tick::new(now));
            let cookie = cookies.make(&connection, agreement);
            let offered = [scales.map(|(_, told)| told), None];
            let echo = timestamps.then_some(cookie.timestamp);
            prop_assert_eq!(cookies.check(&connection, cookie.sequence, echo, offered), Some(agreement));
        }
    }
}
