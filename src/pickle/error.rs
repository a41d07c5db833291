//! Why a pickle could not be read.

use super::opcode;

/// Kinds of [`PickleError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PickleErrorKind {
    /// The instruction would import, call or build something, or is not one that plain data needs.
    Refused,
    /// No such instruction exists.
    Unknown,
    /// The input ends inside an instruction or before the last one.
    Truncated,
    /// A protocol newer than 5.
    Protocol,
    /// A number is malformed or does not fit 64 bits.
    Number,
    /// Text or a byte string is malformed.
    Text,
    /// The stack, its marks or the memo do not hold what the instruction takes.
    Stack,
    /// More values, or deeper nesting, than the limits allow.
    Limit,
}

/// A pickle could not be read; says at which instruction and byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unpickle opcode {} (0x{opcode:02x}) at byte {at}{}: {}", self.opcode_name(), self.named(), match .kind {
    PickleErrorKind::Refused => "not an instruction of plain data, refused",
    PickleErrorKind::Unknown => "no such instruction",
    PickleErrorKind::Truncated => "input ends early",
    PickleErrorKind::Protocol => "protocol is newer than 5",
    PickleErrorKind::Number => "malformed number, or not within 64 bits",
    PickleErrorKind::Text => "malformed text",
    PickleErrorKind::Stack => "stack or memo does not hold what it takes",
    PickleErrorKind::Limit => "more values or deeper nesting than is allowed",
})]
pub struct PickleError {
    kind: PickleErrorKind,
    opcode: u8,
    at: usize,
    /// What was named and is not on the list.
    name: Option<String>,
}

impl PickleError {
    pub(super) fn new(kind: PickleErrorKind, opcode: u8, at: usize) -> Self {
        Self { kind, opcode, at, name: None }
    }

    /// Says what was named, as far as a reader needs it.
    pub(super) fn naming(mut self, name: String) -> Self {
        self.name = Some(name.chars().take(200).collect());
        self
    }

    fn named(&self) -> String {
        self.name.as_ref().map(|name| format!(", `{}`", name.escape_debug())).unwrap_or_default()
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> PickleErrorKind {
        self.kind
    }

    /// Python's name of the instruction at fault; `end of input` where there was none to read.
    pub fn opcode_name(&self) -> &'static str {
        match (self.kind, opcode::name(self.opcode)) {
            (PickleErrorKind::Truncated, _) if self.opcode == 0 => "end of input",
            (_, name) => name.unwrap_or("unknown"),
        }
    }

    /// Byte of the input at which the instruction starts.
    pub fn at(&self) -> usize {
        self.at
    }
}
