//! The TCP state tables of IPVS (`ip_vs_proto_tcp.c`, as of Linux 6.1), by the side that a segment comes from.
//!
//! A director sees no more than flags, so this is no TCP state machine: it decides only how long a flow is kept.

use super::Activity;
use crate::wire::TcpFlags;

/// Where a TCP flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// Nothing seen yet.
    None,
    /// Data flows.
    Established,
    /// The server opened (active FTP and the like).
    SynSent,
    /// The client opened.
    SynRecv,
    /// One side closed.
    FinWait,
    /// Both sides closed.
    TimeWait,
    /// Reset, or over.
    Close,
    /// The client closed first.
    CloseWait,
    /// The client closed last.
    LastAck,
    /// Expected: the data connection of FTP.
    Listen,
    /// The server answered under `secure_tcp`.
    SynAck,
}

use TcpState::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI, None as NO,
    SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
};

/// Which side a segment comes from, and whether both sides are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// From the client; the director sees both directions.
    Input,
    /// From the server.
    Output,
    /// From the client; the server's segments go another way (DR, TUN).
    InputOnly,
}

/// The next state by event (rows: reset, SYN, FIN, ACK) and state (columns, in the order of [`TcpState::ALL`]).
type Table = [[TcpState; TcpState::COUNT]; 4];

#[rustfmt::skip]
const INPUT: Table = [
    //NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR], // reset
    [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR], // SYN
    [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW], // FIN
    [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES], // ACK
];

#[rustfmt::skip]
const OUTPUT: Table = [
    //NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL], // reset
    [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR], // SYN
    [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW], // FIN
    [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES], // ACK
];

#[rustfmt::skip]
const INPUT_ONLY: Table = [
    //NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL], // reset
    [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR], // SYN
    [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW], // FIN
    [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES], // ACK
];

impl TcpState {
    /// Number of states.
    pub const COUNT: usize = 11;
    /// All states, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA];

    /// The state's number, for a flow's word.
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// The state of a number; a number that is none is [`TcpState::None`].
    #[inline]
    pub fn from_u8(number: u8) -> Self {
        Self::ALL.get(number as usize).copied().unwrap_or(NO)
    }

    /// The state after a segment with these flags. Without any of the four flags it stays.
    #[inline]
    #[must_use]
    pub fn next(self, view: View, flags: TcpFlags) -> Self {
        let event = if flags.contains(TcpFlags::RST) {
            0
        } else if flags.contains(TcpFlags::SYN) {
            1
        } else if flags.contains(TcpFlags::FIN) {
            2
        } else if flags.contains(TcpFlags::ACK) {
            3
        } else {
            return self;
        };
        let table = match view {
            View::Input => &INPUT,
            View::Output => &OUTPUT,
            View::InputOnly => &INPUT_ONLY,
        };
        table[event][self as usize]
    }

    /// The count that a flow in this state stands in: those on their way to ESTABLISHED are active too, as in IPVS
    /// since Linux 4.8 (scripts/vm/activity.sh).
    #[inline]
    pub const fn activity(self) -> Activity {
        match self {
            ES | SS | SR | SA => Activity::Active,
            _ => Activity::Inactive,
        }
    }

    /// Whether a new SYN may take the flow's place (`conn_reuse_mode` 1).
    #[inline]
    pub const fn is_reusable(self) -> bool {
        matches!(self, TW | CL)
    }

    /// Whether the handshake is not over.
    #[inline]
    pub const fn is_embryonic(self) -> bool {
        matches!(self, NO | SS | SR | SA)
    }

    /// The name that `ipvsadm -Lc` prints.
    pub const fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            ES => "ESTABLISHED",
            SS => "SYN_SENT",
            SR => "SYN_RECV",
            FW => "FIN_WAIT",
            TW => "TIME_WAIT",
            CL => "CLOSE",
            CW => "CLOSE_WAIT",
            LA => "LAST_ACK",
            LI => "LISTEN",
            SA => "SYNACK",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACK: TcpFlags = TcpFlags::ACK;

    fn walk(steps: &[(View, TcpFlags)]) -> Vec<&'static str> {
        let mut state = NO;
        let step = |(view, flags): &(View, TcpFlags)| {
            state = state.next(*view, *flags);
            state.name()
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn a_connection_seen_from_both_sides() {
        let (client, server) = (View::Input, View::Output);
        let fin = TcpFlags::FIN.with(ACK);
        let states = walk(&[
            (client, TcpFlags::SYN),
            (server, TcpFlags::SYN.with(ACK)),
            (client, ACK),
            (server, ACK),
            (client, fin),
            (server, fin),
            (client, ACK),
        ]);
        let expected = ["SYN_RECV", "SYN_RECV", "ESTABLISHED", "ESTABLISHED", "CLOSE_WAIT", "TIME_WAIT", "TIME_WAIT"];
        assert_eq!(states, expected);
    }

    #[test]
    fn a_connection_of_which_only_the_client_is_seen() {
        let client = View::InputOnly;
        let fin = TcpFlags::FIN.with(ACK);
        let states = walk(&[(client, TcpFlags::SYN), (client, ACK), (client, fin), (client, ACK)]);
        assert_eq!(states, ["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "FIN_WAIT"]);
    }

    /// The tables as Linux 6.1 was seen to act: for each event a state for each state, in the order of their numbers.
    const SEEN: [(View, TcpFlags, &str); 12] = [
        (View::Input, TcpFlags::SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
        (View::Input, TcpFlags::FIN, "CL CW SS TW TW TW CL CW LA LI TW"),
        (View::Input, TcpFlags::ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
        (View::Input, TcpFlags::RST, "CL CL CL SR CL CL CL CL LA LI SR"),
        (View::Output, TcpFlags::SYN, "SS ES SS SR SS SS SS SS SS LI SR"),
        (View::Output, TcpFlags::FIN, "TW FW SS TW FW TW CL TW LA LI TW"),
        (View::Output, TcpFlags::ACK, "ES ES SS ES FW TW CL CW LA ES ES"),
        (View::Output, TcpFlags::RST, "CL CL SS CL CL TW CL CL CL CL CL"),
        (View::InputOnly, TcpFlags::SYN, "SR ES ES SR SR SR SR SR SR SR SR"),
        (View::InputOnly, TcpFlags::FIN, "CL FW SS TW FW TW CL CW LA LI TW"),
        (View::InputOnly, TcpFlags::ACK, "ES ES SS ES FW TW CL CW CL LI ES"),
        (View::InputOnly, TcpFlags::RST, "CL CL CL SR CL CL CL CL LA LI CL"),
    ];

    #[test]
    fn every_transition_is_that_of_ipvs() {
        let short = ["NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"];
        for (view, flags, row) in SEEN {
            let ours = TcpState::ALL.map(|state| short[state.next(view, flags) as usize]).join(" ");
            assert_eq!(ours, row, "{view:?} {flags:?}");
        }
    }

    #[test]
    fn reset_goes_before_syn_before_fin_before_ack() {
        let all = TcpFlags::RST.with(TcpFlags::SYN).with(TcpFlags::FIN).with(ACK);
        assert_eq!(ES.next(View::Input, all), CL);
        assert_eq!(TW.next(View::Input, TcpFlags::SYN.with(TcpFlags::FIN).with(ACK)), SR);
        assert_eq!(ES.next(View::Input, TcpFlags::new(0x08)), ES, "a push alone changes nothing");
    }

    #[test]
    fn activity_is_that_of_ipvs() {
        let seen = include_str!("../../../scripts/vm/fixtures/activity.txt");
        let mut states = 0;
        for line in seen.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split(' ').collect();
            let state = TcpState::ALL.into_iter().find(|state| state.name() == words[1]).unwrap();
            let counts = if state.activity() == Activity::Active { ["1", "0"] } else { ["0", "1"] };
            assert_eq!(words[2..], counts, "{line}");
            states += 1;
        }
        assert_eq!(states, 4);
    }

    #[test]
    fn numbers_come_back() {
        for state in TcpState::ALL {
            assert_eq!(TcpState::from_u8(state.to_u8()), state);
        }
        assert_eq!(TcpState::from_u8(200), NO);
    }
}
