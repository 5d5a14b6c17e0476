//! Claims on interfaces: of two directors in one network namespace, the second must not replace the first one's program.
//!
//! A claim is a Unix socket with an abstract name: the names are the network namespace's own, and the kernel gives one
//! back when its process ends, however it ends.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::compile::kernel_port::DATAPLANE_END;
use crate::compile::{PortPlan, PortRole};
use crate::config::Config;
use crate::state_dir::DYING_WITHIN;

/// What one director has for itself; given back when dropped.
#[derive(Debug, Default)]
pub struct Claims(Vec<UnixListener>);

/// Why a claim is refused.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another director has it.
    #[error(
        "interface {0} belongs to another director that runs in this network namespace (with another --state-dir); stop that one first"
    )]
    Taken(String),
    /// The claim cannot be made.
    #[error("cannot claim interface {interface}: {source}")]
    Io {
        /// What was to be claimed.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Claims {
    /// Claims the networks' interfaces, and the kernel port where there is to be one.
    pub async fn make(config: &Config, ports: &[PortPlan]) -> Result<Self, ClaimError> {
        let mut claims = Self::default();
        for port in ports.iter().filter(|port| port.role == PortRole::Network) {
            claims.claim(&port.name).await?;
        }
        if config.dataplane.kernel_port.is_some() {
            claims.claim(DATAPLANE_END).await?;
        }
        Ok(claims)
    }

    /// Claims one, waiting a while for a killed director that still has it.
    async fn claim(&mut self, interface: &str) -> Result<(), ClaimError> {
        let failed = |source| ClaimError::Io { interface: interface.to_owned(), source };
        let address = SocketAddr::from_abstract_name(format!("sluice/{interface}")).map_err(failed)?;
        let patience = Instant::now() + DYING_WITHIN;
        let mut waits = false;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(claim) => {
                    self.0.push(claim);
                    return Ok(());
                }
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => return Err(failed(error)),
                Err(_) if Instant::now() >= patience => return Err(ClaimError::Taken(interface.to_owned())),
                Err(_) => {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::info!(
                            interface,
                            "another director has the interface; waiting up to {DYING_WITHIN:?} for its end"
                        );
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_claim_is_one_directors_until_it_is_dropped() {
        // A name that no interface can have, so that no director on this machine has it either.
        let name = format!("test claim of process {}", std::process::id());
        let mut first = Claims::default();
        first.claim(&name).await.unwrap();
        assert!(matches!(Claims::default().claim(&name).await, Err(ClaimError::Taken(_))));
        drop(first);
        Claims::default().claim(&name).await.unwrap();
    }
}
