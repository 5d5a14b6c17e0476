//! `search`: the highest rate that nothing is lost at (RFC 2544, section 26.1).

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use dataplane::clock;
use serde::Serialize;
use sluice_bench::machine::{Machine, Quiet};

use crate::bisection::{Bisection, Verdict};
use crate::cli::Format;
use crate::error::PktgenError;
use crate::generate::Stream;
use crate::measure::{LatencyLog, LatencyResult};
use crate::progress::{Progress, Show};
use crate::report;
use crate::send::{Prepared, Way};
use crate::stop::Stop;
use crate::stream::Rate;
use crate::trial::{self, Back, Outcome};

/// Find the highest rate that nothing is lost at
///
/// Trials at the ceiling first, then halving what lies between the highest rate that passed and the lowest that failed.
/// A trial passes when no more than --loss of its packets were lost and the generator kept to its schedule; so an answer
/// near the ceiling is a limit of the generator. Without --ceiling, the ceiling is what a trial without pace sends.
///
/// Needs --receive. Rates of several streams keep their proportions. RFC 2544 asks for trials of 60 s; short ones see
/// less of what happens rarely.
#[derive(Args, Debug)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    way: Way,
    /// Length of each trial
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = humantime::parse_duration)]
    trial: Duration,
    /// Packets a second, of all streams, that are not exceeded
    #[arg(long, value_name = "RATE", value_parser = crate::number::count)]
    ceiling: Option<u64>,
    /// Share of the packets that may be lost, 0 to 1
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    loss: f64,
    /// How well the answer has to be known, as a share of the ceiling
    #[arg(long, default_value_t = 0.01, value_parser = precision)]
    precision: f64,
    /// A rate fails when so many trials at it have failed: more than 1 on a machine that does other things, too
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=10))]
    attempts: u8,
    /// End after this time whatever is known by then
    #[arg(long, default_value = "5m", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s| (0.0..=1.0).contains(s)).ok_or_else(|| format!("'{text}' is not between 0 and 1"))
}

fn precision(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|p| (0.0001..=0.5).contains(p)).ok_or_else(|| format!("'{text}' is not 0.0001 to 0.5"))
}

/// One trial as it is told.
#[derive(Clone, Debug, Serialize)]
struct TrialReport {
    /// `None`: without pace.
    asked_packets_per_second: Option<f64>,
    sent_packets_per_second: f64,
    sent: u64,
    lost: u64,
    passed: bool,
    latency: Option<LatencyResult>,
}

#[derive(Debug, Serialize)]
struct SearchReport {
    command: &'static str,
    /// The highest rate that passed, as it was sent; 0 when none did.
    packets_per_second: f64,
    bits_per_second: f64,
    /// What was not exceeded.
    ceiling_packets_per_second: f64,
    /// Nothing failed: the limit lies above the ceiling, or is the generator's.
    is_at_ceiling: bool,
    allowed_loss: f64,
    trial_seconds: f64,
    trials: Vec<TrialReport>,
    machine: Machine,
    warnings: Vec<String>,
}

/// The share of a schedule that a generator may miss in a trial: its ends, and a preemption.
const KEPT: f64 = 0.99;

/// Runs the command and prints its result.
pub(crate) fn run(args: &SearchArgs) -> Result<(), PktgenError> {
    let prepared = args.way.prepare()?;
    if let Back::Elsewhere = prepared.ends.back {
        return Err(PktgenError::NoReceiver);
    }
    let stop = Stop::after(args.duration)?;
    let quiet = Quiet::watch();
    let began = clock::since_boot();
    let mut trials = Trials { args, weights: weights(&prepared.streams), prepared, stop, done: Vec::new() };
    let ceiling = match args.ceiling {
        Some(ceiling) => ceiling as f64,
        None => trials.run(None)?.sent_packets_per_second,
    };
    let mut search = Bisection::new(ceiling, args.precision);
    let mut best: Option<TrialReport> = None;
    while let Some(rate) = search.next().filter(|_| !trials.stop.is_reached(clock::since_boot())) {
        let trial = trials.at(rate)?;
        search.note(rate, if trial.passed { Verdict::Passed } else { Verdict::Failed });
        if trial.passed {
            best = Some(trial);
        }
    }
    let mut warnings: Vec<String> =
        quiet.disturbance(clock::since_boot().saturating_sub(began).as_secs_f64()).into_iter().collect();
    if trials.stop.is_reached(clock::since_boot()) {
        warnings.push("stopped before the answer was known to the precision that was asked for".into());
    }
    let found = best.as_ref().map_or(0.0, |trial| trial.sent_packets_per_second);
    let result = SearchReport {
        command: "search",
        packets_per_second: found,
        bits_per_second: found * trials.mean_bits(),
        ceiling_packets_per_second: ceiling,
        is_at_ceiling: search.is_unlimited() && search.passed() > 0.0,
        allowed_loss: args.loss,
        trial_seconds: args.trial.as_secs_f64(),
        trials: trials.done,
        machine: Machine::here(),
        warnings,
    };
    print(&result, best.as_ref(), args.format)
}

/// What makes trials, and those that were made.
struct Trials<'a> {
    args: &'a SearchArgs,
    prepared: Prepared,
    /// Each stream's share of the rate.
    weights: Vec<f64>,
    stop: Stop,
    done: Vec<TrialReport>,
}

impl Trials<'_> {
    /// Trials at a rate until one passes or there are enough.
    fn at(&mut self, rate: f64) -> Result<TrialReport, PktgenError> {
        let mut trial = self.run(Some(rate))?;
        for _ in 1..self.args.attempts {
            if trial.passed || self.stop.is_reached(clock::since_boot()) {
                break;
            }
            trial = self.run(Some(rate))?;
        }
        Ok(trial)
    }

    /// One trial, told on standard error.
    fn run(&mut self, rate: Option<f64>) -> Result<TrialReport, PktgenError> {
        for (stream, weight) in self.prepared.streams.iter_mut().zip(&self.weights) {
            stream.rate = rate.map_or(Rate::Max, |rate| Rate::PerSecond(rate * weight));
        }
        let now = clock::since_boot();
        let order = trial::Order {
            // Another number than the last one's: what is late is not counted here.
            run: (self.done.len() as u8).wrapping_add(1),
            streams: &self.prepared.streams,
            count: u64::MAX,
            linger: self.args.way.linger,
            idle: self.args.way.idle.into(),
        };
        let (mut progress, mut log) = (Progress::new(Show::Never, now), LatencyLog::new(now));
        let part = self.stop.part(now + self.args.trial);
        let outcome = trial::run(&mut self.prepared.ends, order, &part, &mut progress, &mut log)?;
        let report = judge(&outcome, rate, self.args.loss);
        writeln!(io::stderr(), "{report}")?;
        self.done.push(report.clone());
        Ok(report)
    }

    /// Bits of a packet without FCS, on average over the sizes of all streams.
    fn mean_bits(&self) -> f64 {
        let streams = self.prepared.streams.iter().zip(&self.weights);
        streams.map(|(stream, weight)| stream.sizes.mean() * 8.0 * weight).sum()
    }
}

/// What a trial says about its rate.
fn judge(outcome: &Outcome, asked: Option<f64>, allowed: f64) -> TrialReport {
    let sent = outcome.sent.packets;
    let rate = report::Rate::of(sent, outcome.sent.bytes, outcome.seconds).packets_per_second;
    let lost = outcome.received.as_ref().map_or(sent, |received| received.lost);
    let is_kept = asked.is_none_or(|asked| rate >= KEPT * asked);
    TrialReport {
        asked_packets_per_second: asked,
        sent_packets_per_second: rate,
        sent,
        lost,
        passed: is_kept && sent > 0 && lost as f64 <= allowed * sent as f64,
        latency: outcome.received.as_ref().and_then(|received| received.latency),
    }
}

/// Each stream's share of the whole rate: as their rates are, or the same for all where one has no limit.
fn weights(streams: &[Stream]) -> Vec<f64> {
    let rate = |stream: &Stream| match stream.rate {
        Rate::PerSecond(rate) => Some(rate),
        Rate::Max => None,
    };
    let rates: Option<Vec<f64>> = streams.iter().map(rate).collect();
    let rates = rates.unwrap_or_else(|| vec![1.0; streams.len()]);
    let whole: f64 = rates.iter().sum();
    rates.iter().map(|rate| rate / whole).collect()
}

impl std::fmt::Display for TrialReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let asked = self.asked_packets_per_second.map_or_else(|| "max".to_owned(), |rate| format!("{rate:.0}"));
        let verdict = if self.passed { "passed" } else { "failed" };
        write!(f, "  asked {asked:>9}  sent {:9.0} pps  lost {:8}  {verdict}", self.sent_packets_per_second, self.lost)
    }
}

fn print(result: &SearchReport, best: Option<&TrialReport>, format: Format) -> Result<(), PktgenError> {
    for warning in &result.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    if let Format::Json = format {
        return report::json(result);
    }
    let mut out = io::stdout().lock();
    let SearchReport { packets_per_second: rate, ceiling_packets_per_second: ceiling, allowed_loss, .. } = result;
    let more = if result.is_at_ceiling { ": the limit is the generator's, or above" } else { "" };
    writeln!(out, "search: {rate:.0} packets a second with a loss of at most {allowed_loss}")?;
    writeln!(out, "  {} trials of {} s; ceiling {ceiling:.0}{more}", result.trials.len(), result.trial_seconds)?;
    if let Some(latency) = best.and_then(|trial| trial.latency) {
        latency.text(&mut out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::Sent;
    use crate::measure::{Collector, Runs};

    fn outcome(sent: u64, lost: u64) -> Outcome {
        let mut received = Collector::new(Runs::Only(1)).unwrap().result(Some(&[lost]));
        received.packets = sent - lost;
        let sent = Sent { packets: sent, bytes: sent * 60, stalls: 0 };
        Outcome { seconds: 1.0, sent, by_stream: vec![sent.packets], received: Some(received) }
    }

    #[test]
    fn a_trial_passes_when_nothing_is_lost_and_the_schedule_was_kept() {
        assert!(judge(&outcome(1000, 0), Some(1000.0), 0.0).passed);
        assert!(!judge(&outcome(1000, 1), Some(1000.0), 0.0).passed);
        assert!(judge(&outcome(1000, 1), Some(1000.0), 0.001).passed);
        assert!(!judge(&outcome(1000, 0), Some(1100.0), 0.0).passed, "the generator did not keep up");
        assert!(!judge(&outcome(0, 0), Some(1000.0), 0.0).passed);
    }

    #[test]
    fn shares_are_shares() {
        assert_eq!(share("0.01"), Ok(0.01));
        assert!(share("1.5").is_err() && share("x").is_err() && precision("0").is_err());
    }
}
