//! The machine of a replay: the topology as given, with what the director itself would add to it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use crate::compile::kernel_port::{
    DATAPLANE_END, DATAPLANE_MAC, KERNEL_END, KERNEL_MAC, KERNEL_V4, KERNEL_V6, PREFIX_V4, PREFIX_V6,
};
use crate::compile::{CompileError, local_addresses, static_link};
use crate::config::Config;
use crate::topology::{Topology, batch};

use super::ReplayError;

/// The topology of a text (read from `path`, for errors), with static addresses in place and the kernel port made.
pub(super) fn describe(path: &Path, mut text: String, config: &Config) -> Result<Topology, ReplayError> {
    let parse =
        |text: &str| batch::parse(text).map_err(|errors| ReplayError::Topology { path: path.to_owned(), errors });
    let given = parse(&text)?;
    // In the words of the text, so that an address brings the same routes along whether it stands there or here.
    for address in &config.static_addresses {
        let link = static_link(address, &given)?;
        if !given.has_address(address.address.addr()) {
            line(&mut text, format_args!("addr add {} dev {}", address.address, given.name(link)));
        }
    }
    let locals = local_addresses(config, &given, &BTreeSet::new(), None).map_err(CompileError::from)?;
    for local in &locals {
        line(&mut text, format_args!("addr add {} dev {}", local.address, local.dev));
    }
    if config.dataplane.kernel_port.is_some() && given.link_named(DATAPLANE_END).is_none() {
        line(&mut text, format_args!("link add {DATAPLANE_END} address {DATAPLANE_MAC} type veth"));
        line(&mut text, format_args!("link add {KERNEL_END} address {KERNEL_MAC} type veth"));
        line(&mut text, format_args!("addr add {KERNEL_V4}/{PREFIX_V4} dev {KERNEL_END}"));
        line(&mut text, format_args!("addr add {KERNEL_V6}/{PREFIX_V6} dev {KERNEL_END}"));
    }
    parse(&text)
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{words}");
}
