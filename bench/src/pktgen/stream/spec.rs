//! A stream as it is asked for, by options of the command line or by a table of a file.

use clap::Args;
use serde::{Deserialize, Deserializer};
use std::str::FromStr;

use super::{Endpoints, Kind, Order, Rate, Sizes};

/// What one stream sends.
#[derive(Args, Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// What it is made of
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub(crate) protocol: Kind,
    /// Sources: ADDRESSES[:PORTS], such as 10.0.0.1-10.0.0.9:1024-2047, IPv6 addresses in brackets. Default: the
    /// interface's own address, ports 10000 to 10999
    #[arg(long, value_name = "ENDPOINTS")]
    #[serde(default, deserialize_with = "parsed_or_none")]
    pub(crate) from: Option<Endpoints>,
    /// Destinations, as the sources: 10.20.0.100:53
    #[arg(long, value_name = "ENDPOINTS", required = false, required_unless_present = "file")]
    #[serde(deserialize_with = "parsed")]
    pub(crate) to: Endpoints,
    /// Bytes of the frames without FCS, of datagrams: 60, 60-1514, imix, or sizes with weights, 60:7,590:4,1514:1
    #[arg(long, default_value_t)]
    #[serde(default, deserialize_with = "parsed")]
    pub(crate) size: Sizes,
    /// Packets a second, such as 100k, or max
    #[arg(long, default_value_t)]
    #[serde(default, deserialize_with = "parsed")]
    pub(crate) rate: Rate,
    /// How the flow (source and destination) of a packet is chosen
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub(crate) order: Order,
    /// What the stream is called in results
    #[arg(long, default_value = "stream")]
    #[serde(default = "unnamed")]
    pub(crate) name: String,
}

/// What no stream can be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadStream {
    #[error("stream {name}: from and to are of different families")]
    Families { name: String },
    #[error("stream {name}: the destination has no port: write ADDRESS:PORT")]
    NoPort { name: String },
    #[error("stream {name}: frames of {size} bytes do not fit the interface's MTU of {mtu}")]
    TooLarge { name: String, size: u16, mtu: u32 },
}

impl Spec {
    /// Looks for addresses that nobody can mean.
    pub(crate) fn check(&self) -> Result<(), BadStream> {
        let name = || self.name.clone();
        if self.from.is_some_and(|from| from.first().is_ipv4() != self.to.first().is_ipv4()) {
            return Err(BadStream::Families { name: name() });
        }
        if self.to.ports().is_none() {
            return Err(BadStream::NoPort { name: name() });
        }
        Ok(())
    }

    /// Looks for frames that an interface of this MTU would not send.
    pub(crate) fn check_size(&self, mtu: u32) -> Result<(), BadStream> {
        let size = self.size.largest();
        if u32::from(size) > mtu + 14 {
            Err(BadStream::TooLarge { name: self.name.clone(), size, mtu })
        } else {
            Ok(())
        }
    }
}

fn unnamed() -> String {
    "stream".to_owned()
}

/// A value of a file: text, or a number where a number says it all.
#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Number(u64),
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(from: D) -> Result<T, D::Error> {
    let text = match Value::deserialize(from)? {
        Value::Text(text) => text,
        Value::Number(number) => number.to_string(),
    };
    text.parse().map_err(serde::de::Error::custom)
}

fn parsed_or_none<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(from: D) -> Result<Option<T>, D::Error> {
    parsed(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_nobody_can_mean_are_refused() {
        let spec = |from: &str, to: &str, size: &str| Spec {
            protocol: Kind::Udp,
            from: Some(from.parse().unwrap()),
            to: to.parse().unwrap(),
            size: size.parse().unwrap(),
            rate: Rate::Max,
            order: Order::Random,
            name: "x".into(),
        };
        let right = spec("10.0.0.1", "10.0.0.2:7", "1514");
        assert_eq!((right.check(), right.check_size(1500)), (Ok(()), Ok(())));
        let name = || "x".to_owned();
        let mixed = spec("fd00::1", "10.0.0.2:7", "60").check();
        assert_eq!(mixed, Err(BadStream::Families { name: name() }));
        assert_eq!(spec("10.0.0.1", "10.0.0.2", "60").check(), Err(BadStream::NoPort { name: name() }));
        let large = spec("10.0.0.1", "10.0.0.2:7", "60,1515").check_size(1500);
        assert_eq!(large, Err(BadStream::TooLarge { name: name(), size: 1515, mtu: 1500 }));
    }
}
