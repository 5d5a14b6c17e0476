//! The control side of Sluice: configuration, the kernel's addresses and routes, the director and its commands.

pub mod cli;
pub mod compile;
pub mod config;
pub mod kernel;
mod sys;
pub mod topology;
