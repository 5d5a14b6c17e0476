//! What servers said in their last handshake, and what clients of their service are told because of it.
//!
//! Both outlive snapshots. An option is offered when no server of the service is known to lack it: of a server that
//! has not been asked yet, the usual is supposed, and its first handshake tells.

use std::sync::atomic::{AtomicU64, Ordering};

use super::SynProxy;
use super::segment::Options;

/// The window scale that is supposed of a server that has not been asked yet: what Linux has by default.
const USUAL_SCALE: u8 = 7;

/// Set in every word that holds something.
const KNOWN: u64 = 1 << 63;
const HAS_SACK: u64 = 1 << 32;
const HAS_TIMESTAMPS: u64 = 1 << 33;
/// Where window scales stand in a word (15: none).
const SCALE: u32 = 16;
const SCALE_BEFORE: u32 = 24;
const NO_SCALE: u8 = 15;

/// The options of a server's last handshake.
#[derive(Debug, Default)]
pub struct LastHandshake(AtomicU64);

/// What a server was asked for in a handshake: what it lacks without having been asked is not known.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Whether the SYN had a window scale.
    pub window_scale: bool,
    /// Whether it permitted selective acknowledgements.
    pub sack: bool,
    /// Whether it had time stamps.
    pub timestamps: bool,
}

impl LastHandshake {
    /// Notes a server's answer. True when it says something new.
    pub fn note(&self, asked: Asked, answer: &Options) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        let mut options = unpack(seen).unwrap_or(USUAL);
        options.mss = answer.mss.or(options.mss);
        if asked.window_scale {
            options.window_scale = answer.window_scale;
        }
        if asked.sack {
            options.sack = answer.sack;
        }
        if asked.timestamps {
            options.timestamps = answer.timestamps.map(|_| (0, 0));
        }
        let word = pack(&options);
        if word != seen {
            self.0.store(word, Ordering::Relaxed);
        }
        word != seen
    }

    /// Its options; `None` before the first handshake.
    pub fn options(&self) -> Option<Options> {
        unpack(self.0.load(Ordering::Relaxed))
    }
}

/// What clients of a service are told, and the window scale that they were told before.
#[derive(Debug, Default)]
pub struct Offer(AtomicU64);

impl Offer {
    /// What clients are told now, by `settings` where those say something.
    #[inline]
    pub fn options(&self, settings: &SynProxy) -> Options {
        let servers = unpack(self.0.load(Ordering::Relaxed)).unwrap_or(USUAL);
        Options {
            mss: settings.mss.or(servers.mss),
            window_scale: settings.window_scale.unwrap_or(servers.window_scale),
            sack: settings.sack.unwrap_or(servers.sack),
            timestamps: settings.timestamps.unwrap_or(servers.timestamps.is_some()).then_some((0, 0)),
        }
    }

    /// The window scales that clients may have been told within the last minutes.
    pub fn scales(&self, settings: &SynProxy) -> [Option<u8>; 2] {
        let word = self.0.load(Ordering::Relaxed);
        let before = if word & KNOWN == 0 { None } else { scale(word, SCALE_BEFORE) };
        [self.options(settings).window_scale, before]
    }

    /// Takes what all servers of the service said: the least of each.
    pub fn settle<'s>(&self, servers: impl Iterator<Item = &'s LastHandshake>) {
        let all = servers.filter_map(LastHandshake::options).reduce(|a, b| Options {
            mss: a.mss.into_iter().chain(b.mss).min(),
            // The larger: a window is told in its units, and what is less than one is rounded off.
            window_scale: a.window_scale.zip(b.window_scale).map(|(a, b)| a.max(b)),
            sack: a.sack && b.sack,
            timestamps: a.timestamps.and(b.timestamps),
        });
        let Some(all) = all else { return };
        let seen = self.0.load(Ordering::Relaxed);
        let before = unpack(seen).unwrap_or(USUAL).window_scale;
        let kept = if before == all.window_scale { scale(seen, SCALE_BEFORE) } else { before };
        let word = pack(&all) | u64::from(kept.unwrap_or(NO_SCALE)) << SCALE_BEFORE;
        if word != seen {
            self.0.store(word, Ordering::Relaxed);
        }
    }
}

const USUAL: Options = Options { mss: None, window_scale: Some(USUAL_SCALE), sack: true, timestamps: Some((0, 0)) };

fn pack(options: &Options) -> u64 {
    let scale = u64::from(options.window_scale.unwrap_or(NO_SCALE)) << SCALE;
    let flag = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
    KNOWN
        | u64::from(options.mss.unwrap_or(0))
        | scale
        | flag(options.sack, HAS_SACK)
        | flag(options.timestamps.is_some(), HAS_TIMESTAMPS)
}

fn unpack(word: u64) -> Option<Options> {
    (word & KNOWN != 0).then(|| Options {
        mss: Some(word as u16).filter(|mss| *mss > 0),
        window_scale: scale(word, SCALE),
        sack: word & HAS_SACK != 0,
        timestamps: (word & HAS_TIMESTAMPS != 0).then_some((0, 0)),
    })
}

fn scale(word: u64, at: u32) -> Option<u8> {
    Some((word >> at) as u8 & 0xf).filter(|scale| *scale != NO_SCALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Asked = Asked { window_scale: true, sack: true, timestamps: true };

    fn answer(mss: u16, window_scale: Option<u8>, sack: bool, timestamps: bool) -> Options {
        Options { mss: Some(mss), window_scale, sack, timestamps: timestamps.then_some((1, 2)) }
    }

    #[test]
    fn only_what_all_servers_have_is_offered() {
        let servers = [LastHandshake::default(), LastHandshake::default(), LastHandshake::default()];
        let (offer, settings) = (Offer::default(), SynProxy::default());
        assert_eq!(offer.options(&settings), USUAL);
        assert!(servers[0].note(ALL, &answer(1460, Some(9), true, true)));
        assert!(!servers[0].note(ALL, &answer(1460, Some(9), true, true)));
        offer.settle(servers.iter());
        assert_eq!(offer.options(&settings), Options { timestamps: Some((0, 0)), ..answer(1460, Some(9), true, true) });
        assert_eq!(offer.scales(&settings), [Some(9), Some(7)]);
        servers[1].note(ALL, &answer(1400, Some(5), false, true));
        offer.settle(servers.iter());
        assert_eq!(offer.scales(&settings), [Some(9), Some(7)], "the larger, and what was told before it");
        let told = offer.options(&settings);
        assert_eq!((told.mss, told.sack, told.timestamps.is_some()), (Some(1400), false, true));
        servers[2].note(ALL, &answer(1460, None, true, false));
        offer.settle(servers.iter());
        assert_eq!(offer.scales(&settings), [None, Some(9)]);
        assert_eq!(offer.options(&settings).timestamps, None);
    }

    #[test]
    fn a_server_that_was_not_asked_lacks_nothing() {
        let server = LastHandshake::default();
        let asked = Asked { window_scale: false, sack: true, timestamps: false };
        server.note(asked, &answer(1460, None, false, false));
        let read = server.options().unwrap();
        assert_eq!((read.window_scale, read.sack, read.timestamps.is_some()), (Some(7), false, true));
    }

    #[test]
    fn settings_go_before_what_servers_say() {
        let (server, offer) = (LastHandshake::default(), Offer::default());
        server.note(ALL, &answer(1460, None, false, false));
        offer.settle(std::iter::once(&server));
        let settings = SynProxy {
            mss: Some(1200),
            window_scale: Some(Some(3)),
            sack: Some(true),
            timestamps: Some(true),
            ..SynProxy::default()
        };
        let expected = Options { mss: Some(1200), window_scale: Some(3), sack: true, timestamps: Some((0, 0)) };
        assert_eq!(offer.options(&settings), expected);
        assert_eq!(offer.scales(&settings), [Some(3), Some(7)]);
    }
}
