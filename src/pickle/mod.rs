//! Python pickles as data: nothing in them is ever called, imported or built.
//!
//! A pickle is a program for a stack machine. This one knows the instructions that make containers, numbers, text,
//! bytes, booleans and `None`, those that remember and recall them (the memo), and no other: whatever names a class or
//! calls something is refused by its name and place before anything after it is looked at. Where [`Limits::names`] lists
//! names, those may be named and called, and the call is noted as data: callee and arguments, nothing more happens; so are
//! persistent ids. That is what `torch.save` needs ([`import`](crate::import)). Protocols 0 to 4 are read,
//! 5 as far as it uses the same instructions, Python 2's byte strings included.
//!
//! Hostile bytes cost little. Values lie in one arena and containers hold their indices, so that a value that is
//! recalled a million times is one value, a cycle is no trap, and neither reading nor dropping recurses. Work and
//! memory are linear in the input, and [`Limits`] bounds both.
//!
//! Rejected: `serde-pickle`. It never runs code either, but it copies what the memo recalls (a few dozen bytes can ask
//! for gigabytes), it recurses as deep as the input says, and it carries out `REDUCE` for a list of known classes.

mod cursor;
mod error;
mod machine;
mod opcode;
mod scalar;
#[cfg(test)]
mod tests;
mod value;

pub use error::{PickleError, PickleErrorKind};
pub(crate) use value::{Fields, Pickle, ValueId};

/// How much a pickle may ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Values pushed on the stack, recalled ones included. Default: 32 million, ten times those of RefCOCO;
    /// about 2 GiB at worst.
    pub values: usize,
    /// Containers that are open at once. Default: 64.
    pub depth: usize,
    /// What may be named and called, as `module.name`; a call is noted and not made. Default: nothing.
    pub names: &'static [&'static str],
}

impl Default for Limits {
    fn default() -> Self {
        Self { values: 32 << 20, depth: 64, names: &[] }
    }
}
