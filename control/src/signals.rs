//! The signals that guard and director answer, as one stream.

use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A signal cannot be received.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for {0}: {1}")]
pub struct SignalsError(Signal, #[source] std::io::Error);

/// SIGTERM and SIGINT (stop), SIGHUP (reload), SIGUSR1 and SIGUSR2 (as keepalived has them: passed on, without effect yet).
#[derive(Debug)]
pub struct Signals {
    term: Stream,
    int: Stream,
    hup: Stream,
    usr1: Stream,
    usr2: Stream,
}

impl Signals {
    /// Begins to listen: from now on the signals do not end the process. Needs a tokio runtime.
    pub fn listen() -> Result<Self, SignalsError> {
        let open = |name, kind| signal(kind).map_err(|error| SignalsError(name, error));
        Ok(Self {
            term: open(Signal::SIGTERM, SignalKind::terminate())?,
            int: open(Signal::SIGINT, SignalKind::interrupt())?,
            hup: open(Signal::SIGHUP, SignalKind::hangup())?,
            usr1: open(Signal::SIGUSR1, SignalKind::user_defined1())?,
            usr2: open(Signal::SIGUSR2, SignalKind::user_defined2())?,
        })
    }

    /// The next signal. Stops come first when several wait.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(()) = self.term.recv() => Signal::SIGTERM,
            Some(()) = self.int.recv() => Signal::SIGINT,
            Some(()) = self.hup.recv() => Signal::SIGHUP,
            Some(()) = self.usr1.recv() => Signal::SIGUSR1,
            Some(()) = self.usr2.recv() => Signal::SIGUSR2,
            else => std::future::pending().await,
        }
    }
}
