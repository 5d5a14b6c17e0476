//! What became of one packet, as the result file tells it.

use dataplane::counters::Drop;
use dataplane::steer::Verdict;
use serde::Serialize;

/// One packet's fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub(super) enum Fate {
    /// It left by a port.
    Forwarded {
        /// Where it left.
        #[serde(flatten)]
        sent: Sent,
        /// The flow that it belongs to.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<Flow>,
    },
    /// A worker dropped it.
    Dropped {
        /// The counter's name.
        reason: &'static str,
        /// What that means.
        description: &'static str,
        /// What was sent because of it: a reset, an ICMP error.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        answers: Vec<Sent>,
        /// The flow that it belongs to.
        #[serde(skip_serializing_if = "Option::is_none")]
        flow: Option<Flow>,
    },
    /// The kernel has it.
    Kernel {
        /// How it came there.
        by: KernelWay,
        /// What that means.
        description: &'static str,
        /// What the steering program counted, where it decided.
        #[serde(skip_serializing_if = "Option::is_none")]
        verdict: Option<&'static str>,
        /// Where it left, when it went by the kernel port.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[serde(flatten)]
        sent: Option<Sent>,
    },
    /// A worker keeps it for now, such as a fragment before its first.
    Held,
}

/// A way into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KernelWay {
    /// The steering program passed it.
    Steering,
    /// A worker gave it over.
    KernelPort,
    /// The interface is no port of the director: it has no steering program.
    NoPort,
}

impl KernelWay {
    const fn describe(self) -> &'static str {
        match self {
            Self::Steering => "passed to kernel (steering)",
            Self::KernelPort => "passed to kernel (kernel port)",
            Self::NoPort => "the interface is no port of the director, its packets are the kernel's",
        }
    }
}

/// A frame that left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Sent {
    /// The interface.
    pub(super) to: String,
    /// Its place in the output capture of that interface, from 0.
    pub(super) output_index: usize,
}

/// The flow of a packet, as it is after the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Flow {
    /// The virtual service.
    pub(super) service: String,
    /// Who opened it.
    pub(super) client: String,
    /// The real server.
    pub(super) server: String,
    /// The packet's direction.
    pub(super) direction: &'static str,
}

impl Fate {
    /// Passed by the steering program.
    pub(super) const fn passed(verdict: Verdict) -> Self {
        let by = KernelWay::Steering;
        Self::Kernel { by, description: by.describe(), verdict: Some(verdict.name()), sent: None }
    }

    /// Arrived where the director does not listen.
    pub(super) const fn of_no_port() -> Self {
        let by = KernelWay::NoPort;
        Self::Kernel { by, description: by.describe(), verdict: None, sent: None }
    }

    /// What follows from a turn's drops, the frames that left in it and whether one went to the kernel.
    pub(super) fn of_turn(drops: &[Drop], mut sent: Vec<Sent>, to_kernel: bool, flow: Option<Flow>) -> Self {
        // A packet and the answer to it may both be dropped in one turn; the reason that asks for an answer is its own.
        let own = drops.iter().find(|reason| is_answered(**reason)).or(drops.first());
        if let Some(reason) = own {
            return Self::Dropped { reason: reason.name(), description: reason.describe(), answers: sent, flow };
        }
        if sent.is_empty() {
            return Self::Held;
        }
        let first = sent.remove(0);
        if to_kernel {
            let by = KernelWay::KernelPort;
            return Self::Kernel { by, description: by.describe(), verdict: None, sent: Some(first) };
        }
        Self::Forwarded { sent: first, flow }
    }

    /// One word or two for the summary.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Self::Forwarded { .. } => "forwarded",
            Self::Dropped { reason, .. } => reason,
            Self::Kernel { description, .. } => description,
            Self::Held => "held by a worker",
        }
    }
}

const fn is_answered(reason: Drop) -> bool {
    matches!(reason, Drop::NoFlow | Drop::NoFlowLimited | Drop::NoDestination | Drop::TtlExceeded | Drop::TooBig)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(to: &str) -> Sent {
        Sent { to: to.into(), output_index: 7 }
    }

    #[test]
    fn a_drop_stands_before_what_answered_it() {
        let fate = Fate::of_turn(&[Drop::NoRoute, Drop::NoFlow], Vec::new(), false, None);
        assert_eq!(fate.label(), "no_flow");
        let fate = Fate::of_turn(&[Drop::NoFlow], vec![sent("eth0")], false, None);
        let json = serde_json::to_value(&fate).unwrap();
        assert_eq!(json["fate"], "dropped");
        assert_eq!(json["answers"][0]["to"], "eth0");
        assert_eq!(json["description"], Drop::NoFlow.describe());
    }

    #[test]
    fn what_left_is_forwarded_or_the_kernels() {
        let json = serde_json::to_value(Fate::of_turn(&[], vec![sent("eth1")], false, None)).unwrap();
        assert_eq!(json, serde_json::json!({"fate": "forwarded", "to": "eth1", "output_index": 7}));
        let json = serde_json::to_value(Fate::of_turn(&[], vec![sent("sluice0")], true, None)).unwrap();
        assert_eq!(
            (&json["fate"], &json["by"], &json["to"]),
            (&"kernel".into(), &"kernel_port".into(), &"sluice0".into())
        );
        let json = serde_json::to_value(Fate::passed(Verdict::PassedMiss)).unwrap();
        assert_eq!(json["verdict"], "passed_miss");
        assert!(json.get("to").is_none());
        assert_eq!(serde_json::to_value(Fate::of_turn(&[], vec![], false, None)).unwrap()["fate"], "held");
    }
}
