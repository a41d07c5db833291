//! Parsers of outside bytes under mutations of real inputs: nothing panics, nothing takes memory out of proportion.
//!
//! The mutations are the same in every run. What fails is left in `target/fuzz/NAME`, to be run again with
//! `FUZZ_INPUT=target/fuzz/NAME cargo test --release --test fuzz NAME`; the seeds lie in `target/fuzz/corpus/NAME` then,
//! for `cargo fuzz` (see `Cargo.toml` beside this).

mod mutate;
mod parsers;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use mutate::Mutator;
use parsers::{PARSERS, Parser};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The allocator counts for all threads: one parser at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Reads one input; an error says what it did wrong.
fn try_one(parser: &Parser, input: &[u8]) -> Result<bool, String> {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let outcome = catch_unwind(AssertUnwindSafe(|| (parser.run)(input)));
    let taken = MEMORY.peak_usage().saturating_sub(before) >> 20;
    let accepted = outcome.map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        format!("panicked: {}", said.unwrap_or_default())
    })?;
    if taken > parser.mib { Err(format!("took {taken} MiB, {} are allowed", parser.mib)) } else { Ok(accepted) }
}

fn check(name: &str) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let parser = PARSERS.iter().find(|parser| parser.name == name).expect("is one of them");
    if let Some(file) = std::env::var_os("FUZZ_INPUT") {
        let outcome = try_one(parser, &fs::read(&file).expect("can be read"));
        return eprintln!("{name}: {outcome:?}");
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    let corpus = target.join("corpus").join(name);
    fs::create_dir_all(&corpus).expect("is made");
    let seeds = (parser.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(corpus.join(number.to_string()), seed).expect("is written");
    }

    let mut mutator = Mutator::new(name, seeds);
    let (mut accepted, mut faults) = (0, 0);
    // Panics are caught here, and those of decoders in the parsers.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut first = None;
    for round in 0..parser.rounds {
        let input = mutator.next();
        match try_one(parser, &input) {
            Ok(yes) => accepted += usize::from(yes),
            Err(fault) => {
                faults += 1;
                if first.is_none() {
                    fs::write(target.join(name), &input).expect("is written");
                    first = Some(format!("{name}, round {round}, input in target/fuzz/{name}: {fault}"));
                }
            }
        }
    }
    std::panic::set_hook(hook);
    eprintln!("{name}: {accepted} of {} mutated inputs accepted, {faults} faults", parser.rounds);
    assert_eq!(first, None, "{faults} faults");
    assert!(accepted < parser.rounds, "nothing was refused: are the inputs read at all?");
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_parser_has_a_test_and_accepts_its_seeds() {
            let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            assert_eq!(PARSERS.iter().map(|p| p.name).collect::<Vec<_>>(), [$(stringify!($name)),*]);
            let accepted = |p: &Parser| (p.seeds)().iter().filter(|seed| (p.run)(seed)).count();
            let deaf: Vec<_> = PARSERS.iter().filter(|p| accepted(p) < (p.seeds)().len()).map(|p| p.name).collect();
            assert_eq!(deaf, [""; 0], "these refuse a seed");
        }
    };
}

tests! {
    files rows depth masks answers json commands manifests recipes listings checkpoints configs adapters recordings
    recorded refcoco coco grefcoco llava reasonseg
}
