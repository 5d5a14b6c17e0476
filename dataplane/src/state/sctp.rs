//! The SCTP state tables of IPVS, by the side that a packet comes from: as Linux 6.1 was seen to act
//! (scripts/vm/sctp-states.sh), but for what it cannot be asked.

use super::{Activity, View};
use crate::wire::SctpEvent;

/// Where an SCTP association stands, as far as a director sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SctpState {
    /// Nothing seen yet.
    None,
    /// The client's first INIT.
    Init1,
    /// The client's INIT, again.
    Init,
    /// The server sent its cookie (INIT ACK).
    CookieSent,
    /// The client returned the cookie (COOKIE ECHO).
    CookieReplied,
    /// The server's INIT.
    CookieWait,
    /// The client sent its cookie.
    Cookie,
    /// The server returned the cookie.
    CookieEchoed,
    /// Data flows.
    Established,
    /// The server shuts down.
    ShutdownSent,
    /// The client shuts down.
    ShutdownReceived,
    /// The server acknowledged that it shuts down.
    ShutdownAckSent,
    /// The server refused the association.
    Rejected,
    /// Over.
    Closed,
}

use SctpState::{
    Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR, CookieSent as CS, CookieWait as CW,
    Established as ES, Init as IN, Init1 as I1, None as NO, Rejected as RJ, ShutdownAckSent as SA,
    ShutdownReceived as SR, ShutdownSent as SS,
};

/// The next state by event (rows, in the order of [`SctpEvent`]) and state (columns, in the order of [`SctpState::ALL`]).
type Table = [[SctpState; SctpState::COUNT]; SctpEvent::COUNT];

#[rustfmt::skip]
const INPUT: Table = [
    //NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // data
    [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN], // INIT
    [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL], // INIT ACK
    [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // COOKIE ECHO
    [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL], // COOKIE ACK
    [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL], // SHUTDOWN
    [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL], // SHUTDOWN ACK
    [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL], // SHUTDOWN COMPLETE
    [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL], // ERROR
    [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL], // ABORT
];

#[rustfmt::skip]
const OUTPUT: Table = [
    //NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // data
    [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW], // INIT
    [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // INIT ACK
    [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL], // COOKIE ECHO
    [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL], // COOKIE ACK
    [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL], // SHUTDOWN
    [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL], // SHUTDOWN ACK
    [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // SHUTDOWN COMPLETE
    [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // ERROR
    [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL], // ABORT
];

#[rustfmt::skip]
const INPUT_ONLY: Table = [
    //NO  I1  IN  CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    [ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL], // data
    [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN], // INIT
    [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL], // INIT ACK
    [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL], // COOKIE ECHO
    [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL], // COOKIE ACK
    [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL], // SHUTDOWN
    [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL], // SHUTDOWN ACK
    [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL], // SHUTDOWN COMPLETE
    [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL], // ERROR
    [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL], // ABORT
];

impl SctpState {
    /// Number of states.
    pub const COUNT: usize = 14;
    /// All states, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL];

    /// The state's number, for a flow's word.
    pub const fn to_u8(self) -> u8 {
        self as u8
    }

    /// The state of a number; a number that is none is [`SctpState::None`].
    pub fn from_u8(number: u8) -> Self {
        Self::ALL.get(number as usize).copied().unwrap_or(NO)
    }

    /// The state after a packet.
    #[must_use]
    pub const fn next(self, view: View, event: SctpEvent) -> Self {
        let table = match view {
            View::Input => &INPUT,
            View::Output => &OUTPUT,
            View::InputOnly => &INPUT_ONLY,
        };
        table[event as usize][self as usize]
    }

    /// The count that a flow in this state stands in.
    pub const fn activity(self) -> Activity {
        match self {
            ES => Activity::Active,
            _ => Activity::Inactive,
        }
    }

    /// Whether a new INIT may take the flow's place (`conn_reuse_mode` 1).
    pub const fn is_reusable(self) -> bool {
        matches!(self, CL)
    }

    /// Whether the handshake is not over.
    pub const fn is_embryonic(self) -> bool {
        matches!(self, NO | I1 | IN | CS | CR | CW | CO | CE)
    }

    /// How long a flow may idle, in seconds.
    pub(super) const fn idle(self) -> u32 {
        match self {
            NO => 2,
            I1 | RJ => 4,
            ES => 900,
            // The longest time between two transmissions, and one more.
            _ => 61,
        }
    }

    /// The name that `ipvsadm -Lc` prints.
    pub const fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            I1 => "INIT1",
            IN => "INIT",
            CS => "C-SENT",
            CR => "C-REPLIED",
            CW => "C-WAIT",
            CO => "COOKIE",
            CE => "C-ECHOED",
            ES => "ESTABLISHED",
            SS => "S-SENT",
            SR => "S-RECEIVED",
            SA => "S-ACK-SENT",
            RJ => "REJECTED",
            CL => "CLOSED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SctpEvent::{CookieAck, CookieEcho, Data, Init, InitAck, Shutdown, ShutdownAck, ShutdownComplete};

    fn walk(steps: &[(View, SctpEvent)]) -> Vec<&'static str> {
        let mut state = NO;
        let step = |(view, event): &(View, SctpEvent)| {
            state = state.next(*view, *event);
            state.name()
        };
        steps.iter().map(step).collect()
    }

    #[test]
    fn an_association_seen_from_both_sides() {
        let (client, server) = (View::Input, View::Output);
        let states = walk(&[
            (client, Init),
            (server, InitAck),
            (client, CookieEcho),
            (server, CookieAck),
            (client, Data),
            (client, Shutdown),
            (server, ShutdownAck),
            (client, ShutdownComplete),
        ]);
        let expected =
            ["INIT1", "C-SENT", "C-REPLIED", "ESTABLISHED", "ESTABLISHED", "S-RECEIVED", "S-ACK-SENT", "CLOSED"];
        assert_eq!(states, expected);
    }

    #[test]
    fn an_association_of_which_only_the_client_is_seen() {
        let client = View::InputOnly;
        let states = walk(&[(client, Init), (client, CookieEcho), (client, Shutdown), (client, ShutdownComplete)]);
        assert_eq!(states, ["INIT1", "ESTABLISHED", "S-RECEIVED", "CLOSED"]);
    }

    const EVENTS: [SctpEvent; SctpEvent::COUNT] = [
        Data,
        Init,
        InitAck,
        CookieEcho,
        CookieAck,
        Shutdown,
        ShutdownAck,
        ShutdownComplete,
        SctpEvent::Error,
        SctpEvent::Abort,
    ];

    #[test]
    fn every_transition_that_ipvs_was_seen_to_make_is_ours() {
        let seen = include_str!("../../../scripts/vm/fixtures/sctp-states.txt");
        let mut rows = 0;
        for line in seen.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<_> = line.split(' ').collect();
            let &[side, state, packet, after] = words.as_slice() else { panic!("{line}") };
            let view = match side {
                "client" => View::Input,
                "server" => View::Output,
                _ => View::InputOnly,
            };
            let state = SctpState::ALL.into_iter().find(|known| known.name() == state).unwrap();
            let event = EVENTS.into_iter().find(|event| format!("{event:?}") == packet).unwrap();
            assert_eq!(state.next(view, event).name(), after, "{line}");
            rows += 1;
        }
        assert_eq!(rows, 338);
    }

    #[test]
    fn numbers_come_back() {
        for state in SctpState::ALL {
            assert_eq!(SctpState::from_u8(state.to_u8()), state);
        }
        assert_eq!(SctpState::from_u8(200), NO);
    }
}
