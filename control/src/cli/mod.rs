//! The commands of the program `sluice`, one a file.

pub mod check;
