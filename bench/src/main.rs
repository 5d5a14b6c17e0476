//! `sluice-bench`: what a packet costs, beside its limits.

fn main() {}
