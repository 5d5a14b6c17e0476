//! A file of streams, in TOML: a `[[stream]]` for each, with the fields of [`Spec`].

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

use super::Spec;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stream: Vec<Spec>,
}

/// Why a file gives no streams.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {file}: {source}")]
    Read { file: PathBuf, source: io::Error },
    #[error("{file}: {source}")]
    Syntax { file: PathBuf, source: toml::de::Error },
    #[error("{file} has {streams} streams: 1 to 256 are possible")]
    Number { file: PathBuf, streams: usize },
}

/// Reads the streams of a file.
pub(crate) fn read(file: &Path) -> Result<Vec<Spec>, FileError> {
    let text = fs::read_to_string(file).map_err(|source| FileError::Read { file: file.to_owned(), source })?;
    parse(&text, file)
}

fn parse(text: &str, file: &Path) -> Result<Vec<Spec>, FileError> {
    let syntax = |source| FileError::Syntax { file: file.to_owned(), source };
    let File { mut stream } = toml::from_str(text).map_err(syntax)?;
    // A probe has one byte for the stream's number.
    if stream.is_empty() || stream.len() > 256 {
        return Err(FileError::Number { file: file.to_owned(), streams: stream.len() });
    }
    for (number, spec) in stream.iter_mut().enumerate().filter(|(_, spec)| spec.name == "stream") {
        spec.name = format!("stream {number}");
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Kind, Order, Rate};

    fn parsed(text: &str) -> Result<Vec<Spec>, String> {
        parse(text, Path::new("streams.toml")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_file_has_what_the_command_line_has() {
        let streams = parsed(
            r#"
            [[stream]]
            name = "dns"
            from = "10.10.0.2-10.10.0.9:1024-2047"
            to = "10.20.0.100:53"
            size = "imix"
            rate = "100k"
            order = "random"

            [[stream]]
            protocol = "syn"
            to = "[fd00:20::100]:80"
            size = 78
            rate = 5000
            "#,
        )
        .unwrap();
        let [dns, syn] = &streams[..] else { panic!("{streams:?}") };
        assert_eq!((dns.name.as_str(), dns.order, dns.rate), ("dns", Order::Random, Rate::PerSecond(1e5)));
        assert_eq!(dns.from.unwrap().count(), 8 * 1024);
        assert_eq!((syn.name.as_str(), syn.protocol, syn.size.largest()), ("stream 1", Kind::Syn, 78));
    }

    #[test]
    fn mistakes_are_shown_where_they_are() {
        let wrong = parsed("[[stream]]\nto = \"10.20.0.100:53\"\nrate = \"fast\"\n").unwrap_err();
        assert!(wrong.contains("line 3") && wrong.contains("fast"), "{wrong}");
        let unknown = parsed("[[stream]]\nto = \"10.20.0.100:53\"\nspeed = 3\n").unwrap_err();
        assert!(unknown.contains("unknown field `speed`"), "{unknown}");
        assert!(parsed("[[stream]]\nfrom = \"10.0.0.1\"\n").unwrap_err().contains("missing field `to`"));
        assert!(parsed("stream = []").unwrap_err().contains("0 streams"));
    }
}
