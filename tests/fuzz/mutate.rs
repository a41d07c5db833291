//! Mutations of real inputs, the same in every run.

use rand_core::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Numbers that parsers stumble over, as text.
const WORDS: [&str; 14] = [
    "0",
    "-1",
    "1e308",
    "-0.0",
    "NaN",
    "null",
    "4294967296",
    "18446744073709551616",
    "9999999999999999999999",
    "[[[[",
    "{\"\":",
    "\u{0}",
    "\u{202e}",
    "\u{fffd}",
];
/// As bytes.
const BYTES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xfe, 0xff, b'"', b'\n'];
/// As words of four bytes.
const WIDE: [u32; 8] = [0, 1, 1 << 24, 0x7fff_ffff, 0x8000_0000, 0xffff_ff7f, 0xffff_fff0, 0xffff_ffff];

/// Makes inputs from seeds.
pub struct Mutator {
    rng: Pcg64Mcg,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// The mutations of one parser; its name decides about them.
    pub fn new(name: &str, seeds: Vec<Vec<u8>>) -> Self {
        assert!(!seeds.is_empty());
        let number = name.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        Self { rng: Pcg64Mcg::seed_from_u64(number), seeds }
    }

    fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() % n.max(1) as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A range of `bytes`, at most 32 of them.
    fn range(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        start..(start + self.below(33)).min(bytes.len())
    }

    /// The next input: a seed with one to four changes.
    pub fn next(&mut self) -> Vec<u8> {
        let which = self.below(self.seeds.len());
        let mut input = self.seeds[which].clone();
        for _ in 0..1 + self.below(4) {
            self.change(&mut input);
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len());
        let range = self.range(input);
        match self.below(10) {
            0 => input.truncate(at),
            1 => drop(input.drain(range)),
            // Twice, or many times.
            2 => {
                let piece = input[range.clone()].repeat(1 + self.below(4));
                drop(input.splice(range.start..range.start, piece));
            }
            3 => {
                let other = self.below(self.seeds.len());
                let piece = self.range(&self.seeds[other].clone());
                let piece = self.seeds[other][piece].to_vec();
                drop(input.splice(range, piece));
            }
            4 => {
                let word = self.pick(&WORDS);
                drop(input.splice(range, word.bytes()));
            }
            5 => self.number(input, at),
            6 | 7 if !input.is_empty() => input[at] = self.pick(&BYTES),
            8 if input.len() >= 4 => {
                let at = at.min(input.len() - 4);
                let wide = self.pick(&WIDE);
                input[at..at + 4].copy_from_slice(&wide.to_le_bytes());
            }
            _ if !input.is_empty() => input[at] ^= 1 << self.below(8),
            _ => input.push(0),
        }
    }

    /// Another number in the place of the next one that is written in digits.
    fn number(&mut self, input: &mut Vec<u8>, from: usize) {
        let Some(start) = input[from..].iter().position(u8::is_ascii_digit).map(|i| from + i) else { return };
        let length = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let word = self.pick(&WORDS);
        drop(input.splice(start..start + length, word.bytes()));
    }
}
