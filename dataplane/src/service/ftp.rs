//! Whether the commands of FTP are read on a service's connections, so that its data connections are let through.

/// What a service says of FTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Ftp {
    /// Connections to port 21 are of FTP.
    #[default]
    ByPort,
    /// All connections of the service are.
    On,
    /// None is.
    Off,
}
