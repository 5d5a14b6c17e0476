//! `ops`: whether the datagrams of a UDP service form flows.

/// How datagrams are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Datagrams {
    /// Those of one client port go to one server.
    #[default]
    ByFlow,
    /// Each goes where the scheduler says, and is forgotten (one-packet scheduling).
    OneByOne,
}
