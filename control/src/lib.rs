//! The control side of Sluice: configuration, the kernel's addresses and routes, the director and its commands.

pub mod api;
pub mod cli;
pub mod compile;
pub mod config;
#[cfg(feature = "afxdp")]
pub mod director;
pub mod doctor;
pub mod error;
#[cfg(feature = "afxdp")]
pub mod guard;
pub mod kernel;
pub mod logging;
pub mod replay;
#[cfg(feature = "afxdp")]
pub mod signals;
pub mod state_dir;
mod sys;
pub mod topology;
pub mod watch;
