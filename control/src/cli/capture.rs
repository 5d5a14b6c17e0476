//! `sluice capture`: packets of the running director to a pcapng file.

use std::fs::File;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::reload::no_answer;
use super::trace::FILTERS;
use super::{StateArguments, block_on, fail, say};
use crate::api::client;
use crate::state_dir::StateDir;
use crate::watch::{Form, Order, Point};

#[derive(Debug, Args)]
#[command(after_help = FILTERS)]
pub(super) struct CaptureArguments {
    /// Which packets: see below
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// The file to write; - for standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// End after so many frames
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Where frames are captured [default: everywhere]
    #[arg(long, value_name = "POINT", value_delimiter = ',')]
    at: Vec<Where>,
    /// Packets a second that each worker shows at most [default: 50000]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    #[command(flatten)]
    state: StateArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Where {
    /// As they arrive
    Ingress,
    /// As they leave
    Egress,
    /// As they are when they are dropped
    Drop,
}

impl From<Where> for Point {
    fn from(at: Where) -> Self {
        match at {
            Where::Ingress => Self::Ingress,
            Where::Egress => Self::Egress,
            Where::Drop => Self::Drop,
        }
    }
}

pub(super) fn run(arguments: &CaptureArguments) -> ExitCode {
    let socket = StateDir::new(&arguments.state.state_dir).socket();
    let order = Order {
        filter: arguments.filter.join(" "),
        count: arguments.count,
        rate: arguments.rate,
        at: arguments.at.iter().copied().map(Point::from).collect(),
    };
    let mut out: Box<dyn Write> = if arguments.write.as_os_str() == "-" {
        Box::new(io::stdout())
    } else {
        match File::create(&arguments.write) {
            Ok(file) => Box::new(file),
            Err(error) => return fail(&format!("cannot write {}", arguments.write.display()), &error),
        }
    };
    let mut written = Ok(());
    let mut bytes = 0;
    let each = |piece: &[u8]| {
        bytes += piece.len();
        written = out.write_all(piece).and_then(|()| out.flush());
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let begun = || say(&format!("capturing to {}; Ctrl-C ends it", arguments.write.display()));
    let ended = block_on(async {
        tokio::select! {
            ended = client::watch(&socket, Form::Capture, &order, begun, each) => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    });
    match ended {
        Ok(Ok(())) => match written {
            Ok(()) => {
                say(&format!("{bytes} bytes written"));
                ExitCode::SUCCESS
            }
            Err(error) => fail(&format!("cannot write {}", arguments.write.display()), &error),
        },
        Ok(Err(error)) => no_answer("cannot capture", &error),
        Err(error) => fail("cannot capture", &error),
    }
}
