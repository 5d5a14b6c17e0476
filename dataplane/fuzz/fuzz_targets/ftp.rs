//! The reader of FTP's commands and replies: no bytes make it panic, what it finds lies inside, and what is written in
//! the place of it is read again as it was meant.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::forward::ftp::{self, Announcement, Form, Found};
use libfuzzer_sys::fuzz_target;

const ADDRESSES: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x80))];

fuzz_target!(|data: &[u8]| {
    for read in [ftp::commands, ftp::replies] {
        if let Found::One(announced) = read(data) {
            assert!(announced.port > 0 && announced.at.start < announced.at.end && announced.at.end <= data.len());
            for address in ADDRESSES.into_iter().filter(|address| announced.form.can_say(*address)) {
                replace(read, data, &announced, address);
            }
        }
    }
});

/// Writes another address and port into what announced one, and reads it again.
fn replace(read: fn(&[u8]) -> Found, data: &[u8], announced: &Announcement, address: IpAddr) {
    let text = ftp::text(announced.form, address, 40_123);
    let (front, rest) = data.split_at(announced.at.start);
    let after = &rest[announced.at.len()..];
    let written = [front, text.as_bytes(), after].concat();
    let Found::One(again) = read(&written) else {
        panic!("{:?} is not read again", written.escape_ascii().to_string())
    };
    assert_eq!((again.form, again.port, again.at.start), (announced.form, 40_123, announced.at.start));
    assert_eq!(again.at.len(), text.len());
    assert!(again.address == Some(address) || (again.address.is_none() && again.form == Form::PortOnly));
}
