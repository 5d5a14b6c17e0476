//! Steering: the XDP program that decides which frames are the dataplane's, what it is told, and its loader.
//!
//! [`SteerPlan`] is the wish, plain data; [`Steer`] (feature `afxdp`) loads the program, attaches it by netlink, so that
//! it outlives a killed process, and keeps its maps equal to the plan. [`model`] decides as the program does, without it.

pub mod model;
// Without `afxdp` nothing expands a plan; its tests still do.
#[cfg_attr(not(feature = "afxdp"), allow(dead_code))]
mod hints;
#[cfg_attr(not(feature = "afxdp"), allow(dead_code))]
mod plan;
mod verdict;

#[cfg(feature = "afxdp")]
mod attach;
#[cfg(feature = "afxdp")]
mod error;
#[cfg(feature = "afxdp")]
mod loader;

pub use plan::{SteerPlan, SteerPrefix, TunnelEnd};
pub use verdict::Verdict;

#[cfg(feature = "afxdp")]
pub use attach::{AttachMode, Cleaned, Interface, NATIVE_MTU_LIMIT, cleanup};
#[cfg(feature = "afxdp")]
pub use error::SteerError;
#[cfg(feature = "afxdp")]
pub use loader::{Decision, Steer, SteerLimits};
