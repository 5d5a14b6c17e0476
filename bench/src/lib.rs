//! What the programs of this crate share: `sluice-bench` and `sluice-pktgen`.

// Times and counts become figures to read; no digit that matters is lost.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

pub mod machine;
