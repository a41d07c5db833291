//! Arguments of the instructions that push one number, text or byte string.

use std::borrow::Cow;

use super::cursor::{Cursor, parse};
use super::error::{PickleError, PickleErrorKind};
use super::opcode as op;
use super::value::Value;

/// Reads the constant or number of `opcode`.
pub(super) fn number<'a>(cursor: &mut Cursor<'a>, opcode: u8) -> Result<Value<'a>, PickleError> {
    Ok(match opcode {
        op::NONE => Value::None,
        op::NEWTRUE => Value::Bool(true),
        op::NEWFALSE => Value::Bool(false),
        op::INT => match cursor.line()? {
            // How protocol 0 writes booleans since they exist.
            b"00" => Value::Bool(false),
            b"01" => Value::Bool(true),
            line => Value::Int(parse(line).ok_or_else(|| cursor.error(PickleErrorKind::Number))?),
        },
        op::LONG => {
            let line = cursor.line()?;
            let digits = line.strip_suffix(b"L").unwrap_or(line);
            Value::Int(parse(digits).ok_or_else(|| cursor.error(PickleErrorKind::Number))?)
        }
        op::BININT => Value::Int(i32::from_le_bytes(cursor.array()?).into()),
        op::BININT1 => Value::Int(u8::from_le_bytes(cursor.array()?).into()),
        op::BININT2 => Value::Int(u16::from_le_bytes(cursor.array()?).into()),
        op::LONG1 | op::LONG4 => {
            let bytes = counted(cursor, if opcode == op::LONG1 { 1 } else { 4 })?;
            Value::Int(long(bytes).ok_or_else(|| cursor.error(PickleErrorKind::Number))?)
        }
        op::FLOAT => Value::Float(cursor.decimal()?),
        op::BINFLOAT => Value::Float(f64::from_be_bytes(cursor.array()?)),
        _ => return Err(cursor.error(PickleErrorKind::Unknown)),
    })
}

/// Reads the text or byte string of `opcode`.
pub(super) fn string<'a>(cursor: &mut Cursor<'a>, opcode: u8) -> Result<Value<'a>, PickleError> {
    let bytes = match opcode {
        op::STRING => {
            let line = cursor.line()?;
            return quoted(line).map(Value::Bytes).ok_or_else(|| cursor.error(PickleErrorKind::Text));
        }
        op::UNICODE => {
            let line = cursor.line()?;
            return raw_unicode(line).map(Value::Text).ok_or_else(|| cursor.error(PickleErrorKind::Text));
        }
        op::SHORT_BINSTRING | op::SHORT_BINBYTES | op::SHORT_BINUNICODE => counted(cursor, 1)?,
        op::BINBYTES8 | op::BINUNICODE8 => counted(cursor, 8)?,
        _ => counted(cursor, 4)?,
    };
    match opcode {
        op::BINUNICODE | op::SHORT_BINUNICODE | op::BINUNICODE8 => {
            let text = std::str::from_utf8(bytes).map_err(|_| cursor.error(PickleErrorKind::Text))?;
            Ok(Value::Text(text.into()))
        }
        _ => Ok(Value::Bytes(bytes.into())),
    }
}

/// Bytes behind a little-endian count of `width` bytes.
fn counted<'a>(cursor: &mut Cursor<'a>, width: u64) -> Result<&'a [u8], PickleError> {
    let mut count = [0; 8];
    let bytes = cursor.take(width)?;
    count[..bytes.len()].copy_from_slice(bytes);
    cursor.take(u64::from_le_bytes(count))
}

/// A little-endian number in two's complement of any length; `None` where it does not fit.
fn long(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (low, high) = bytes.split_at(bytes.len().min(8));
    let mut all = [fill; 8];
    all[..low.len()].copy_from_slice(low);
    let value = i64::from_le_bytes(all);
    (high.iter().all(|b| *b == fill) && (value < 0) == negative).then_some(value)
}

/// A byte string as Python 2's `repr` writes it: in quotes, with escapes.
fn quoted(line: &[u8]) -> Option<Cow<'_, [u8]>> {
    let line = line.trim_ascii();
    let (&first, rest) = line.split_first()?;
    let (&last, inner) = rest.split_last()?;
    if first != last || !matches!(first, b'\'' | b'"') {
        return None;
    }
    if !inner.contains(&b'\\') {
        return Some(inner.into());
    }
    let (mut out, mut rest) = (Vec::with_capacity(inner.len()), inner);
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            out.push(byte);
            rest = after;
            continue;
        }
        let (decoded, after) = escape(after)?;
        out.push(decoded);
        rest = after;
    }
    Some(out.into())
}

/// One escape of a byte string, without its backslash: the byte and what follows.
fn escape(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (&kind, after) = rest.split_first()?;
    let simple = match kind {
        b'\\' | b'\'' | b'"' => kind,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'v' => 0x0b,
        b'x' => {
            let (digits, after) = after.split_at_checked(2)?;
            return Some((code(digits)? as u8, after));
        }
        _ => return None,
    };
    Some((simple, after))
}

/// Text of protocol 0: Latin-1 with `\uXXXX` and `\UXXXXXXXX`; Python 2 may write a pair of surrogates for one character.
fn raw_unicode(line: &[u8]) -> Option<Cow<'_, str>> {
    if line.is_ascii() && !line.contains(&b'\\') {
        return std::str::from_utf8(line).ok().map(Cow::from);
    }
    let (mut units, mut rest) = (Vec::with_capacity(line.len()), line);
    while let Some((&byte, after)) = rest.split_first() {
        let width = match after.first() {
            Some(b'u') if byte == b'\\' => 4,
            Some(b'U') if byte == b'\\' => 8,
            _ => {
                units.push(u16::from(byte));
                rest = after;
                continue;
            }
        };
        let (digits, after) = after[1..].split_at_checked(width)?;
        match u16::try_from(code(digits)?) {
            Ok(unit) => units.push(unit),
            Err(_) => units.extend_from_slice(char::from_u32(code(digits)?)?.encode_utf16(&mut [0; 2])),
        }
        rest = after;
    }
    String::from_utf16(&units).ok().map(Cow::from)
}

/// Hexadecimal digits, at most eight.
fn code(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
