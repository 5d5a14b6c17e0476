//! What FTP announces in its commands and replies: where the next data connection will go (RFC 959, RFC 2428).
//!
//! The parser is pure and never changes a byte; what it does not understand it says so. A line counts only when it is whole
//! and begins with its segment or after another line.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use arrayvec::ArrayString;

/// How an address and port are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `h1,h2,h3,h4,p1,p2` of PORT and 227.
    Plain,
    /// `|1|address|port|` of EPRT.
    Extended,
    /// `|||port|` of 229: the address is that of the control connection.
    PortOnly,
}

impl Form {
    /// Whether an address can be written so.
    pub const fn can_say(self, address: IpAddr) -> bool {
        !matches!(self, Self::Plain) || address.is_ipv4()
    }
}

/// An announced data connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where the address and port stand in the payload.
    pub at: Range<usize>,
    /// How they are written.
    pub form: Form,
    /// The address; `None` where it is that of the control connection.
    pub address: Option<IpAddr>,
    /// The port, above 0.
    pub port: u16,
}

/// What a segment announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: it may pass as it is.
    Nothing,
    /// One data connection.
    One(Announcement),
    /// Something that cannot be read: a piece of a line, a second line, or nonsense.
    Unreadable,
}

/// The longest text of an address and port.
pub const LONGEST: usize = 64;
/// An address and port as FTP writes them.
pub type Text = ArrayString<LONGEST>;

/// Reads what a client sends: PORT and EPRT.
pub fn commands(payload: &[u8]) -> Found {
    search(payload, |line| match line.split_at_checked(5) {
        Some((word, _)) if word.eq_ignore_ascii_case(b"PORT ") => Some(plain(line, 5)),
        Some((word, _)) if word.eq_ignore_ascii_case(b"EPRT ") => Some(extended(line, 5, Form::Extended)),
        _ => None,
    })
}

/// Reads what a server sends: 227 and 229.
pub fn replies(payload: &[u8]) -> Found {
    search(payload, |line| match line.split_at_checked(4) {
        // Where the numbers begin is not laid down: after a parenthesis, or at the first digit (RFC 1123 section 4.1.2.6).
        Some((b"227 ", rest)) => Some(place(rest, |byte| byte.is_ascii_digit()).and_then(|at| plain(line, 4 + at))),
        Some((b"229 ", rest)) => {
            Some(place(rest, |byte| byte == b'(').and_then(|at| extended(line, 5 + at, Form::PortOnly)))
        }
        _ => None,
    })
}

/// An address and port in a form.
pub fn text(form: Form, address: IpAddr, port: u16) -> Text {
    let mut text = Text::new();
    // The longest fits: a full IPv6 address has 39 bytes.
    let _ = match (form, address) {
        (Form::Plain, IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            write!(text, "{a},{b},{c},{d},{},{}", port >> 8, port & 0xff)
        }
        (Form::Extended, IpAddr::V4(address)) => write!(text, "|1|{address}|{port}|"),
        (Form::Extended, IpAddr::V6(address)) => write!(text, "|2|{address}|{port}|"),
        (Form::PortOnly | Form::Plain, _) => write!(text, "|||{port}|"),
    };
    text
}

/// Goes through the lines of a segment; `read` gives what a line that announces something says.
fn search(payload: &[u8], read: impl Fn(&[u8]) -> Option<Option<Announcement>>) -> Found {
    let mut found = Found::Nothing;
    let mut from = 0;
    for line in payload.split_inclusive(|byte| *byte == b'\n') {
        if let Some(announced) = read(line) {
            let is_whole = line.ends_with(b"\n");
            match announced {
                Some(one) if is_whole && found == Found::Nothing => {
                    let at = from + one.at.start..from + one.at.end;
                    found = Found::One(Announcement { at, ..one });
                }
                _ => return Found::Unreadable,
            }
        }
        from += line.len();
    }
    found
}

fn place(bytes: &[u8], is: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.iter().position(|byte| is(*byte))
}

/// `h1,h2,h3,h4,p1,p2` at an offset of a line.
fn plain(line: &[u8], from: usize) -> Option<Announcement> {
    let mut numbers = [0; 6];
    let mut at = from;
    for (place, number) in numbers.iter_mut().enumerate() {
        if place > 0 {
            at = after(line, at, b',')?;
        }
        let (value, end) = decimal(line, at)?;
        *number = u8::try_from(value).ok()?;
        at = end;
    }
    let [a, b, c, d, high, low] = numbers;
    let port = u16::from_be_bytes([high, low]);
    let address = Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    (port > 0).then_some(Announcement { at: from..at, form: Form::Plain, address, port })
}

/// `|1|address|port|`, `|2|address|port|` or `|||port|` at an offset of a line, with any delimiter.
fn extended(line: &[u8], from: usize, form: Form) -> Option<Announcement> {
    let delimiter = *line.get(from)?;
    if !(33..=126).contains(&delimiter) || delimiter.is_ascii_alphanumeric() {
        return None;
    }
    let rest = line.get(from + 1..)?;
    let mut fields = rest.split(|byte| *byte == delimiter);
    let (kind, address, port) = (fields.next()?, fields.next()?, fields.next()?);
    // What stands behind the last delimiter; without it there is none.
    fields.next()?;
    let address_text = std::str::from_utf8(address).ok()?;
    let address = match (form, kind) {
        (Form::PortOnly, _) if kind.is_empty() && address.is_empty() => None,
        (Form::Extended, b"1") => Some(IpAddr::V4(address_text.parse::<Ipv4Addr>().ok()?)),
        (Form::Extended, b"2") => Some(IpAddr::V6(address_text.parse::<Ipv6Addr>().ok()?)),
        _ => return None,
    };
    let (value, end) = decimal(port, 0)?;
    let number = u16::try_from(value).ok().filter(|number| *number > 0 && end == port.len())?;
    let length = 1 + kind.len() + 1 + address_text.len() + 1 + port.len() + 1;
    Some(Announcement { at: from..from + length, form, address, port: number })
}

fn after(line: &[u8], at: usize, byte: u8) -> Option<usize> {
    (*line.get(at)? == byte).then_some(at + 1)
}

/// A number of at most five digits, and where it ends.
fn decimal(line: &[u8], from: usize) -> Option<(u32, usize)> {
    let digits = line.get(from..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=5).contains(&digits) {
        return None;
    }
    let text = std::str::from_utf8(line.get(from..from + digits)?).ok()?;
    Some((text.parse().ok()?, from + digits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(found: Found) -> (Form, Option<String>, u16, Range<usize>) {
        match found {
            Found::One(a) => (a.form, a.address.map(|address| address.to_string()), a.port, a.at),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_form_is_read() {
        let v4 = Some("10.1.2.3".to_owned());
        assert_eq!(one(commands(b"PORT 10,1,2,3,4,5\r\n")), (Form::Plain, v4.clone(), 1029, 5..17));
        assert_eq!(one(commands(b"port 10,1,2,3,4,5\n")), (Form::Plain, v4.clone(), 1029, 5..17));
        assert_eq!(one(commands(b"EPRT |1|10.1.2.3|6275|\r\n")), (Form::Extended, v4.clone(), 6275, 5..22));
        let v6 = Some("2001:db8::7".to_owned());
        assert_eq!(one(commands(b"EPRT |2|2001:db8::7|6275|\r\n")), (Form::Extended, v6, 6275, 5..25));
        let reply = b"227 Entering Passive Mode (10,1,2,3,4,5).\r\n";
        assert_eq!(one(replies(reply)), (Form::Plain, v4.clone(), 1029, 27..39));
        assert_eq!(one(replies(b"227 =10,1,2,3,4,5\r\n")), (Form::Plain, v4, 1029, 5..17));
        let reply = b"229 Entering Extended Passive Mode (|||6446|)\r\n";
        assert_eq!(one(replies(reply)), (Form::PortOnly, None, 6446, 36..44));
    }

    #[test]
    fn pipelined_lines_are_gone_through() {
        let found = one(commands(b"TYPE I\r\nPORT 10,1,2,3,4,5\r\nRETR a\r\n"));
        assert_eq!((found.2, found.3), (1029, 13..25));
        assert_eq!(commands(b"PORT 10,1,2,3,4,5\r\nPORT 10,1,2,3,4,6\r\n"), Found::Unreadable);
        assert_eq!(replies(b"200 Ok\r\n150 Here\r\n"), Found::Nothing);
        assert_eq!(commands(b"STOR PORT 1,2,3,4,5,6\r\n"), Found::Nothing);
    }

    #[test]
    fn what_cannot_be_read_is_said_so() {
        for line in [
            &b"PORT 10,1,2,3,4"[..],
            b"PORT 10,1,2,3,4,5",
            b"PORT 10,1,2,3,4\r\n",
            b"PORT 10,1,2,3,4,256\r\n",
            b"PORT 10,1,2,3,0,0\r\n",
            b"PORT \r\n",
            b"EPRT |3|10.1.2.3|6275|\r\n",
            b"EPRT |2|10.1.2.3|6275|\r\n",
            b"EPRT |1|10.1.2.3|65536|\r\n",
            b"EPRT |1|10.1.2.3|6275\r\n",
        ] {
            assert_eq!(commands(line), Found::Unreadable, "{}", String::from_utf8_lossy(line));
        }
        assert_eq!(replies(b"227 Entering Passive Mode\r\n"), Found::Unreadable);
        assert_eq!(replies(b"229 Entering (|1|1.2.3.4|5|)\r\n"), Found::Unreadable);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(address: [u8; 4], six: [u8; 16], port in 1u16..) {
            let (four, six) = (IpAddr::from(address), IpAddr::from(six));
            for (form, address) in [(Form::Plain, four), (Form::Extended, four), (Form::Extended, six)] {
                let word = if form == Form::Plain { "PORT" } else { "EPRT" };
                let line = format!("{word} {}\r\n", text(form, address, port));
                let (found, said, number, at) = one(commands(line.as_bytes()));
                prop_assert_eq!((found, said, number), (form, Some(address.to_string()), port));
                prop_assert_eq!(at, 5..line.len() - 2);
            }
            let line = format!("229 Ok ({})\r\n", text(Form::PortOnly, six, port));
            prop_assert_eq!(one(replies(line.as_bytes())).2, port);
        }

        #[test]
        fn no_payload_panics_and_what_is_found_lies_inside(
            word in prop::sample::select(vec!["PORT ", "EPRT ", "227 ", "229 (", ""]),
            rest in "[0-9,|:.() \r\na-f]{0,40}",
        ) {
            let payload = format!("{word}{rest}");
            for found in [commands(payload.as_bytes()), replies(payload.as_bytes())] {
                if let Found::One(one) = found {
                    prop_assert!(one.at.start < one.at.end && one.at.end <= payload.len());
                }
            }
        }
    }
}
