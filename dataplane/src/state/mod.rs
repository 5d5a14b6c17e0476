//! Connection states (stub replaced on merge).

/// Idle times by state.
#[derive(Clone, Debug, Default)]
pub struct Timeouts;
