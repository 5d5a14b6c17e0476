//! The control side of Sluice: configuration, the kernel's addresses and routes, the director and its commands.

pub mod api;
pub mod cli;
pub mod compile;
pub mod config;
pub mod director;
pub mod error;
pub mod guard;
pub mod kernel;
pub mod logging;
pub mod replay;
pub mod signals;
mod sys;
pub mod topology;
