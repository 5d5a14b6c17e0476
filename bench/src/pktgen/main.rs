//! `sluice-pktgen`: load for a director, by AF_XDP, and what became of it.

// Times and counts become figures to read; no digit that matters is lost.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]
// Help texts come from comments and are not markdown.
#![allow(clippy::doc_markdown, rustdoc::broken_intra_doc_links, rustdoc::invalid_html_tags)]

mod bisection;
mod cli;
mod connect;
mod error;
mod generate;
mod link;
mod measure;
mod next_hop;
mod number;
mod progress;
mod reflect;
mod report;
mod search;
mod send;
mod serve;
mod sink;
mod stop;
mod stream;
mod tcp;
#[cfg(test)]
mod through_sluice;
mod trial;
mod turns;
mod wire;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Send(args) => send::run(&args),
        Command::Sink(args) => sink::run(&args),
        Command::Reflect(args) => reflect::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Connect(args) => connect::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Wire(args) => wire::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is closed.
            let _ = writeln!(io::stderr(), "sluice-pktgen: {error}");
            ExitCode::FAILURE
        }
    }
}
