//! How long a flow may idle in each state: the defaults of IPVS, of which `ipvsadm --set` changes three.

use super::{SctpState, TcpState};
use crate::clock::Ticks;

/// The one state of a UDP flow.
pub const UDP_STATE: u8 = 0;

/// Idle times by state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    tcp: [Ticks; TcpState::COUNT],
    udp: Ticks,
}

impl Default for Timeouts {
    fn default() -> Self {
        // In the order of TcpState::ALL.
        Self { tcp: [2, 900, 120, 60, 120, 120, 10, 60, 30, 120, 120].map(Ticks::seconds), udp: Ticks::seconds(300) }
    }
}

impl Timeouts {
    /// The longest time that `ipvsadm --set` takes, in seconds: 31 days.
    pub const LONGEST: u32 = 2_678_400;

    /// The defaults, with what `ipvsadm --set TCP TCPFIN UDP` changes, in seconds; 0 keeps the default.
    #[must_use]
    pub fn with(established: u32, fin_wait: u32, udp: u32) -> Self {
        let mut timeouts = Self::default();
        let set = |ticks: &mut Ticks, seconds: u32| {
            if seconds > 0 {
                *ticks = Ticks::seconds(seconds.min(Self::LONGEST));
            }
        };
        set(&mut timeouts.tcp[TcpState::Established as usize], established);
        set(&mut timeouts.tcp[TcpState::FinWait as usize], fin_wait);
        set(&mut timeouts.udp, udp);
        timeouts
    }

    /// For a TCP flow.
    #[inline]
    pub const fn tcp(&self, state: TcpState) -> Ticks {
        self.tcp[state as usize]
    }

    /// For an SCTP flow: fixed, as in IPVS.
    pub const fn sctp(&self, state: SctpState) -> Ticks {
        Ticks::seconds(state.idle())
    }

    /// For a UDP flow.
    #[inline]
    pub const fn udp(&self) -> Ticks {
        self.udp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_changes_three_and_zero_keeps() {
        let timeouts = Timeouts::with(0, 7, 8);
        assert_eq!(timeouts.tcp(TcpState::Established), Ticks::seconds(900));
        assert_eq!(timeouts.tcp(TcpState::FinWait), Ticks::seconds(7));
        assert_eq!(timeouts.udp(), Ticks::seconds(8));
    }
}
