//! `sluice replay`: where would this packet go?

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::LoadOptions;
use crate::replay::{self, Input, Request};

/// Arguments of `sluice replay`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "\
The topology is the machine that the configuration is for, in the words of `ip -batch`:

  link add eth0 address 02:00:00:00:00:01 mtu 1500
  addr add 10.1.0.1/24 dev eth0
  route add default via 10.1.0.254
  neigh add 10.1.0.254 lladdr 02:00:00:00:01:fe dev eth0

Addresses of `static_ipaddress` count as present. Written to the output directory: for each interface a capture of
what would leave there (INTERFACE.pcap; sluice0.pcap for what a worker gives to the kernel), and result.json with the
fate of every packet in the order of their times, and every counter.

Example:
  sluice replay -c sluice.conf --topology machine.txt --in eth0=clients.pcap --in eth1=servers.pcap --out-dir out")]
pub struct ReplayArgs {
    /// Configuration files, read one after the other as one configuration
    #[arg(short, long = "config", value_name = "FILE", required = true)]
    pub config: Vec<PathBuf>,
    /// The id that `@id` lines are compared with: the name of the director that is meant
    #[arg(short = 'i', long, value_name = "ID", default_value = "", hide_default_value = true)]
    pub config_id: String,
    /// The machine: links, addresses, routes and neighbours
    #[arg(long, value_name = "FILE")]
    pub topology: PathBuf,
    /// A capture (pcap or pcapng) of what arrives on an interface; may be given for several interfaces
    #[arg(long = "in", value_name = "INTERFACE=FILE", required = true, value_parser = parse_input)]
    pub inputs: Vec<Input>,
    /// Where the results go; made if it is not there
    #[arg(long, value_name = "DIRECTORY")]
    pub out_dir: PathBuf,
    /// Workers; packets are dealt to them in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub workers: u8,
}

fn parse_input(text: &str) -> Result<Input, String> {
    match text.split_once('=') {
        Some((interface, file)) if !interface.is_empty() && !file.is_empty() => {
            Ok(Input { interface: interface.to_owned(), file: file.into() })
        }
        _ => Err("expected INTERFACE=FILE, such as eth0=clients.pcap".to_owned()),
    }
}

/// Runs the command. 0: there is a result. 1: an input is wrong; the reason is on standard error.
pub fn run(args: &ReplayArgs) -> ExitCode {
    let request = Request {
        configs: args.config.clone(),
        options: LoadOptions { config_id: args.config_id.clone(), ..LoadOptions::default() },
        topology: args.topology.clone(),
        inputs: args.inputs.clone(),
        out_dir: args.out_dir.clone(),
        workers: usize::from(args.workers),
    };
    let told = match replay::run(&request) {
        Ok(summary) => writeln!(io::stdout(), "{summary}").map(|()| ExitCode::SUCCESS),
        Err(error) => writeln!(io::stderr(), "sluice replay: {error}").map(|()| ExitCode::FAILURE),
    };
    told.unwrap_or(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_names_interface_and_file() {
        let input = Input { interface: "eth0".into(), file: "a=b.pcap".into() };
        assert_eq!(parse_input("eth0=a=b.pcap"), Ok(input));
        assert!(parse_input("eth0").is_err() && parse_input("=a.pcap").is_err() && parse_input("eth0=").is_err());
    }
}
