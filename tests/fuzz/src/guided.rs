//! One of the parsers under libFuzzer: `CTWATCH_PARSER` names it. Started by `cargo xtask fuzz`.
#![no_main]

use std::sync::OnceLock;

use ctwatch_fuzz::{PARSERS, Parser};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static CHOSEN: OnceLock<Option<&'static Parser>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let name = std::env::var("CTWATCH_PARSER").unwrap_or_default();
        PARSERS.iter().find(|parser| parser.name == name)
    });
    match chosen {
        Some(parser) => (parser.read)(bytes),
        None => {
            let names: Vec<_> = PARSERS.iter().map(|parser| parser.name).collect();
            eprintln!("CTWATCH_PARSER must be one of {}", names.join(", "));
            std::process::exit(2);
        }
    }
});
