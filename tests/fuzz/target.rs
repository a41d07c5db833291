//! One parser under cargo-fuzz: the one that this binary is named after.

#![no_main]

#[path = "parsers.rs"]
#[allow(dead_code)] // What the ordinary tests need besides.
mod parsers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let parser = parsers::PARSERS.iter().find(|parser| parser.name == env!("CARGO_BIN_NAME"));
    (parser.expect("is one of them").run)(data);
});
