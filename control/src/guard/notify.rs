//! Word to the service manager: `sd_notify(3)`, a datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The director serves.
    Ready,
    /// The director died and is being started again.
    Restarting,
    /// A stop began.
    Stopping,
}

impl News {
    const fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1\nSTATUS=serving",
            Self::Restarting => "STATUS=the director died and is being started again",
            Self::Stopping => "STOPPING=1\nSTATUS=stopping",
        }
    }
}

/// Tells the service manager, where there is one. Nobody depends on it, so a failure is only logged.
pub(super) fn tell(news: News) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, news.text()) {
        tracing::debug!(%error, "the service manager's NOTIFY_SOCKET does not answer");
    }
}

fn send(socket: &OsStr, text: &str) -> std::io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), News::Ready.text()).unwrap();
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"READY=1"));

        let name = format!("sluice-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), News::Stopping.text()).unwrap();
        let length = manager.recv(&mut buffer).unwrap();
        assert!(buffer[..length].starts_with(b"STOPPING=1"));
    }
}
