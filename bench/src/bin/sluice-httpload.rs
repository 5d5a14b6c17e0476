//! `sluice-httpload`: HTTP requests at a fixed rate, and how long each took.
//!
//! wrk asks as fast as answers come, which compares no delays: a slower balancer is asked less. Here every request has
//! its moment, whatever became of those before. One that had to wait because its connection was still busy is timed from that
//! moment, so a stall counts as often as it would have been felt. (h2load's `--rps` stalls with HTTP/1.1.)

// Times and counts become figures to read; no digit that matters is lost.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use serde::Serialize;

/// The longest that an answer is waited for.
const LIMIT: Duration = Duration::from_secs(5);

/// Sends HTTP requests at a fixed rate over a number of connections and prints, as JSON, how long they took
#[derive(Parser, Clone, Copy, Debug)]
#[command(name = "sluice-httpload", version)]
struct Cli {
    /// Address and port of the server
    server: SocketAddr,
    /// Requests a second, all connections together
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// Connections at once; one thread each
    #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// What a connection is used for
    #[arg(long, value_enum, default_value_t = Use::Many)]
    each: Use,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// For all requests, one after the other
    Many,
    /// For one request; its time begins with the SYN
    One,
}

/// All times in microseconds.
#[derive(Debug, Serialize)]
struct Report {
    requests: u64,
    answered: u64,
    rate: f64,
    p50: u32,
    p90: u32,
    p99: u32,
    p999: u32,
    max: u32,
}

fn main() -> ExitCode {
    let report = run(Cli::parse());
    let mut out = io::stdout().lock();
    // Nothing is left to do when standard output is closed.
    let _ = serde_json::to_writer(&mut out, &report).map(|()| out.write_all(b"\n"));
    if report.answered == report.requests { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(cli: Cli) -> Report {
    // All threads are there before the first request is due.
    let begin = Instant::now() + Duration::from_millis(100);
    let threads: Vec<_> = (0..cli.connections).map(|n| thread::spawn(move || connection(cli, n, begin))).collect();
    let mut times: Vec<u32> = threads.into_iter().filter_map(|t| t.join().ok()).flatten().collect();
    times.sort_unstable();
    let requests = u64::from(cli.rate) * u64::from(cli.seconds);
    let seconds = begin.elapsed().as_secs_f64();
    Report {
        requests,
        answered: times.len() as u64,
        rate: times.len() as f64 / seconds,
        p50: quantile(&times, 0.5),
        p90: quantile(&times, 0.9),
        p99: quantile(&times, 0.99),
        p999: quantile(&times, 0.999),
        max: quantile(&times, 1.0),
    }
}

/// One connection's requests: every `connections`-th of all. Returns the times of those that were answered.
fn connection(cli: Cli, number: u32, begin: Instant) -> Vec<u32> {
    let total = u64::from(cli.rate) * u64::from(cli.seconds);
    let mut times = Vec::with_capacity((total / u64::from(cli.connections)) as usize + 1);
    let mut open = None;
    for index in (u64::from(number)..total).step_by(cli.connections as usize) {
        let due = begin + Duration::from_secs_f64(index as f64 / f64::from(cli.rate));
        let from = wait_for(due);
        match request(cli, &mut open) {
            Ok(()) => times.push(from.elapsed().as_micros() as u32),
            // Not among the times, so it is missing among the answers; the next request begins anew.
            Err(_) => open = None,
        }
    }
    times
}

/// Sleeps until a request is due. Its time counts from when it could be sent: late only by our own fault (a request
/// before it that took too long) counts, late because the system woke us late does not.
fn wait_for(due: Instant) -> Instant {
    let now = Instant::now();
    if due <= now {
        return due;
    }
    thread::sleep(due - now);
    Instant::now()
}

fn request(cli: Cli, open: &mut Option<TcpStream>) -> io::Result<()> {
    let mut stream = match open.take() {
        Some(stream) => stream,
        None => connect(cli.server)?,
    };
    let close = if cli.each == Use::One { "Connection: close\r\n" } else { "" };
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {}\r\n{close}\r\n", cli.server).as_bytes())?;
    answer(&mut stream, cli.each)?;
    if cli.each == Use::Many {
        *open = Some(stream);
    }
    Ok(())
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, LIMIT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Reads one answer: to the end of its body, or of the connection.
fn answer(stream: &mut impl Read, each: Use) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut filled = 0;
    let mut is_whole = false;
    loop {
        let room = buffer.get_mut(filled..).filter(|room| !room.is_empty());
        let count = stream.read(room.ok_or(io::ErrorKind::InvalidData)?)?;
        filled += count;
        is_whole |= buffer.get(..filled).and_then(length).is_some_and(|length| filled >= length);
        match (is_whole, each, count) {
            (true, Use::Many, _) | (true, Use::One, 0) => break,
            (false, _, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => {}
        }
    }
    if buffer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Length of an answer with its head, as the head tells it; `None` while the head is not complete.
fn length(answer: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let value = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok()).flatten()
    };
    Some(head.len() + 4 + head.lines().find_map(value)?)
}

/// The time that this share of the requests did not exceed; 0 when there are none.
fn quantile(sorted: &[u32], share: f64) -> u32 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes";

    #[test]
    fn an_answer_ends_with_its_body_and_not_before() {
        assert_eq!(length(ANSWER), Some(ANSWER.len()));
        assert_eq!(length(&ANSWER[..30]), None);
        assert!(answer(&mut &ANSWER[..], Use::One).is_ok());
        assert!(answer(&mut &ANSWER[..ANSWER.len() - 1], Use::One).is_err());
        assert!(answer(&mut &b"HTTP/1.1 502 Bad\r\ncontent-length: 0\r\n\r\n"[..], Use::One).is_err());
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let times: Vec<u32> = (1..=101).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99), quantile(&times, 1.0)), (51, 100, 101));
        assert_eq!(quantile(&[], 0.5), 0);
    }

    #[test]
    fn every_request_is_answered_and_a_stalled_connection_counts_from_the_moment_that_was_due() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let stalling = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            for n in 0..10 {
                assert!(stream.read(&mut request).unwrap() > 0);
                if n == 0 {
                    thread::sleep(Duration::from_millis(300));
                }
                stream.write_all(ANSWER).unwrap();
            }
        });
        let report = run(Cli { server, rate: 10, connections: 1, seconds: 1, each: Use::Many });
        stalling.join().unwrap();
        assert_eq!((report.requests, report.answered), (10, 10));
        // The second and third were due 100 and 200 ms after the first, and had to wait for it.
        assert!(report.max >= 290_000 && report.p90 >= 190_000, "{report:?}");
    }

    #[test]
    fn requests_that_fail_are_missing() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let report = run(Cli { server: closed, rate: 5, connections: 1, seconds: 1, each: Use::One });
        assert_eq!((report.requests, report.answered, report.max), (5, 0, 0));
    }
}
