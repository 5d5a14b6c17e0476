//! Any bytes as a configuration: no panic, no endless work, and every place inside the text.
#![no_main]

use control::config::{Includes, LoadOptions, Location, parse_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = LoadOptions { config_id: "lb1".to_owned(), includes: Includes::Refuse, ..LoadOptions::default() };
    let loaded = parse_text("fuzz.conf", bytes, &options);
    let diagnostics = &loaded.diagnostics;
    assert_eq!(loaded.config.is_some(), diagnostics.error_count() == 0);
    for diagnostic in diagnostics.iter() {
        if let Location::Span(span) = diagnostic.location {
            let text = diagnostics.sources().file(span.file).expect("a span's file exists").text();
            assert!(text.get(span.start..span.end).is_some(), "{span:?} lies outside or cuts a character");
        }
    }
    diagnostics.to_json();
    // Drawing takes a hundred times as long as parsing: now and then is enough.
    if bytes.len() % 64 == 0 {
        diagnostics.render_plain();
    }
});
