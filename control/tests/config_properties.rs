//! Whatever the bytes: no panic, places inside the text, and no configuration where there is an error.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use control::config::{Includes, LoadOptions, Location, MOST_SHOWN, parse_text};
use proptest::prelude::*;

fn options() -> LoadOptions {
    LoadOptions { config_id: "lb1".to_owned(), includes: Includes::Refuse, ..LoadOptions::default() }
}

fn check(bytes: &[u8]) {
    let loaded = parse_text("any.conf", bytes, &options());
    let diagnostics = &loaded.diagnostics;
    assert_eq!(loaded.config.is_some(), diagnostics.error_count() == 0);
    for diagnostic in diagnostics.iter() {
        let Location::Span(span) = diagnostic.location else { panic!("no file is missing here") };
        let text = diagnostics.sources().file(span.file).unwrap().text();
        assert!(text.get(span.start..span.end).is_some(), "{span:?} of {} bytes: {diagnostic:?}", text.len());
    }
    let plain = diagnostics.render_plain();
    assert!(plain.chars().all(|c| c == '\n' || !c.is_control()), "{plain:?}");
    assert_eq!(diagnostics.to_json().as_array().map(Vec::len), Some(diagnostics.iter().count()));
    diagnostics.render_fancy();
}

/// Pieces of the language, thrown together.
fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "virtual_server",
        "real_server",
        "192.0.2.1",
        "2001:db8::1",
        "80",
        "{",
        "}",
        "\n",
        " ",
        "\t",
        "\r\n",
        "\"",
        "'",
        "\\",
        "#",
        "!",
        "$A=",
        "${A}",
        "$A",
        "${_BANG}",
        "${_RANDOM 1 2}",
        "@lb1 ",
        "@^lb1 ",
        "@sluice ",
        "lb_algo",
        "lb_kind",
        "TUN type ipip",
        "protocol",
        "TCP",
        "weight",
        "dataplane",
        "interface",
        "timeouts",
        "tcp",
        "workers",
        "static_ipaddress",
        "192.0.2.1/24",
        "dev",
        "brd +",
        "global_defs",
        "vrrp_instance",
        "TCP_CHECK",
        "url",
        "script",
        "notify_up",
        "include /etc/hostname",
        "~SEQ(x, 3)",
        "\u{201c}",
        "\u{fffd}",
        "\0",
        "mh",
        "mh-port",
        "router_id",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..80)
        .prop_map(|words| words.into_iter().flat_map(|word| [word, if word.len() > 2 { " " } else { "" }]).collect())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        check(&bytes);
    }

    #[test]
    fn any_mixture_of_the_language_is_survived(text in pieces()) {
        check(text.as_bytes());
    }
}

#[test]
fn a_megabyte_of_garbage_is_answered_soon_and_shortly() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    let random: Vec<u8> = (0..1 << 20).map(|_| noise()).collect();
    let lines = b"xyzzy 1\n".repeat(1 << 17);
    let open = b"{".repeat(1 << 20);
    let nested = b"real_server 192.0.2.1 80 {\n".repeat(40_000);
    let words = b"a ".repeat(1 << 19);
    for bytes in [random, lines, open, nested, words] {
        let start = Instant::now();
        let loaded = parse_text("garbage", &bytes, &options());
        assert!(loaded.config.is_none());
        assert!(loaded.diagnostics.iter().count() <= 2 * MOST_SHOWN);
        assert!(loaded.diagnostics.render_plain().len() < 1 << 20);
        // Generous, for a build without optimisation on a busy machine: quadratic work would take minutes.
        assert!(start.elapsed() < Duration::from_mins(1), "{:?}", start.elapsed());
    }
}
