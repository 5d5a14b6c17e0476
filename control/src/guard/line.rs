//! The line between guard and director: a socket pair, the director's end being its standard input.
//!
//! The director says one word on it when it serves. Each end learns of the other's death by the end of the stream.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// What a director says when it serves.
const READY: u8 = b'R';

/// The guard's end.
#[derive(Debug)]
pub struct GuardEnd(UnixStream);

/// The director's end.
#[derive(Debug)]
pub struct DirectorEnd(UnixStream);

/// A new line: the guard's end, and what the director gets as its standard input.
pub fn pair() -> io::Result<(GuardEnd, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((GuardEnd(UnixStream::from_std(ours)?), theirs.into()))
}

impl GuardEnd {
    /// Returns when the director says that it is ready; never, when it dies before.
    pub async fn ready(&mut self) {
        let mut word = [0];
        match self.0.read(&mut word).await {
            Ok(1) if word[0] == READY => {}
            _ => std::future::pending().await,
        }
    }
}

impl DirectorEnd {
    /// The line of this process, whose standard input it is.
    pub fn from_stdin() -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream).map(Self)
    }

    /// Says that this director serves.
    pub async fn say_ready(&mut self) -> io::Result<()> {
        self.0.write_all(&[READY]).await
    }

    /// Returns when the guard is gone.
    pub async fn guard_gone(&mut self) {
        let mut nothing = [0];
        while matches!(self.0.read(&mut nothing).await, Ok(1)) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_end_hears_the_other() {
        let (mut guard, fd) = pair().unwrap();
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true).unwrap();
        let mut director = DirectorEnd(UnixStream::from_std(stream).unwrap());
        director.say_ready().await.unwrap();
        guard.ready().await;
        drop(guard);
        director.guard_gone().await;
    }
}
