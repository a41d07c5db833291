//! The bytes of a pickle and the place of the instruction that is being read.

use super::error::{PickleError, PickleErrorKind};

/// Reads arguments of instructions; every failure names the instruction.
pub(super) struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
    opcode: u8,
    opcode_at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0, opcode: 0, opcode_at: 0 }
    }

    /// Reads the next instruction.
    pub(super) fn opcode(&mut self) -> Result<u8, PickleError> {
        (self.opcode, self.opcode_at) = (0, self.at);
        self.opcode = self.array::<1>()?[0];
        Ok(self.opcode)
    }

    /// An error about the instruction read last.
    pub(super) fn error(&self, kind: PickleErrorKind) -> PickleError {
        PickleError::new(kind, self.opcode, self.opcode_at)
    }

    /// The next `n` bytes; nothing is allocated for them.
    pub(super) fn take(&mut self, n: u64) -> Result<&'a [u8], PickleError> {
        let rest = &self.input[self.at..];
        let taken = usize::try_from(n).ok().and_then(|n| rest.get(..n));
        let taken = taken.ok_or_else(|| self.error(PickleErrorKind::Truncated))?;
        self.at += taken.len();
        Ok(taken)
    }

    /// The next `N` bytes, as `from_le_bytes` and its like take them.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let (taken, _) = self.take(N as u64)?.split_first_chunk::<N>().expect("N bytes were taken");
        Ok(*taken)
    }

    /// The bytes up to the next line feed, which is skipped.
    pub(super) fn line(&mut self) -> Result<&'a [u8], PickleError> {
        let rest = &self.input[self.at..];
        let end = rest.iter().position(|b| *b == b'\n').ok_or_else(|| self.error(PickleErrorKind::Truncated))?;
        self.at += end + 1;
        Ok(&rest[..end])
    }

    /// A decimal number on a line of its own.
    pub(super) fn decimal<T: std::str::FromStr>(&mut self) -> Result<T, PickleError> {
        parse(self.line()?).ok_or_else(|| self.error(PickleErrorKind::Number))
    }
}

/// Parses ASCII, as Python's `int` and `float` do: white space around it is allowed.
pub(super) fn parse<T: std::str::FromStr>(line: &[u8]) -> Option<T> {
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}
