//! What is said to both sides when an established TCP flow expires.

/// Whether they hear of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpireReset {
    /// Nothing: they find out with their next segment.
    #[default]
    Off,
    /// A reset, as far as the flow's sequence numbers are known.
    On,
}
