//! The reader of answers in JSON, byte by byte.

use super::super::codec::{GridPrompt, MAX_BOXES};
use super::super::cursor::{AnswerError, AnswerErrorKind as Kind, checked_box};
use super::super::dialect::Dialect;
use super::{FENCE, JsonWords, LANGUAGE};
use crate::geometry::{BBox, Grid, Point};

/// Longest answer that is read, in bytes.
pub(super) const MAX_JSON_BYTES: usize = 1 << 14;
/// Most points of a target.
pub(super) const MAX_POINTS: usize = 16;
/// Longest label, quotes and escapes included, in bytes: when read, and when a decoder is held to it.
const MAX_LABEL: [usize; 2] = [512, 64];
/// Longest run of white space, likewise.
const MAX_SPACE: [usize; 2] = [64, 8];

/// What a member of an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    Box,
    Point,
    Label,
}

/// A place in an answer, or behind its end.
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// Bytes that would have to follow the text at the least.
    missing: usize,
    /// Whether a decoder is held to what is read.
    held: bool,
    names_target: Option<bool>,
    words: &'a JsonWords,
    dialect: &'a Dialect,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, dialect: &'a Dialect, held: bool) -> Result<Self, AnswerError> {
        let words = dialect.json().expect("is asked for answers in JSON only");
        match text.len() > MAX_JSON_BYTES {
            true => Err(AnswerError::new(Kind::TooLong, MAX_JSON_BYTES)),
            false => Ok(Self { text, at: 0, missing: 0, held, names_target: None, words, dialect }),
        }
    }

    /// Bytes that would have to follow the text at the least.
    pub(super) fn missing(&self) -> usize {
        self.missing
    }

    /// Whether a target is named (`true`) or none; `None` where the text does not say yet.
    pub(super) fn names_target(&self) -> Option<bool> {
        self.names_target
    }

    fn error(&self, kind: Kind) -> AnswerError {
        AnswerError::new(kind, self.at)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next byte; `None` behind the end of the text.
    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) -> Result<(), AnswerError> {
        let rest = self.rest();
        let run = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        if run > MAX_SPACE[usize::from(self.held)] {
            return Err(self.error(Kind::TooLong));
        }
        self.at += run;
        Ok(())
    }

    /// Consumes `sign`, of which the text may lack the end.
    fn sign(&mut self, sign: &str) -> Result<(), AnswerError> {
        match self.begins(sign) {
            true => {
                self.skip(sign);
                Ok(())
            }
            false => Err(self.error(Kind::Unexpected)),
        }
    }

    /// Whether the rest of the text begins with `sign`, or with as much of it as there is text.
    fn begins(&self, sign: &str) -> bool {
        let rest = self.rest();
        rest.starts_with(sign) || sign.starts_with(rest)
    }

    fn skip(&mut self, sign: &str) {
        let there = sign.len().min(self.rest().len());
        self.at += there;
        self.missing += sign.len() - there;
    }

    /// A whole answer, with nothing behind it.
    pub(super) fn answer(&mut self) -> Result<Vec<GridPrompt>, AnswerError> {
        self.space()?;
        let fenced = self.next() == Some(b'`');
        if fenced {
            self.sign(FENCE)?;
            if self.next() == LANGUAGE.bytes().next() {
                self.sign(LANGUAGE)?;
            }
            self.space()?;
        }
        let targets = self.list()?;
        self.space()?;
        if fenced {
            self.sign(FENCE)?;
            self.space()?;
        }
        if self.next().is_some() { Err(self.error(Kind::Trailing)) } else { Ok(targets) }
    }

    fn list(&mut self) -> Result<Vec<GridPrompt>, AnswerError> {
        self.sign("[")?;
        let open = self.at;
        self.space()?;
        // A decoder that went on behind the bracket went on to a target.
        let may_be_empty = !self.held || self.at == open;
        match self.next() {
            Some(b']') if may_be_empty => {
                self.names_target = Some(false);
                self.at += 1;
                return Ok(Vec::new());
            }
            None if may_be_empty => {
                self.missing += 1;
                return Ok(Vec::new());
            }
            Some(b'{') => self.names_target = Some(true),
            _ => {}
        }
        let mut targets = Vec::new();
        loop {
            if targets.len() == MAX_BOXES {
                return Err(self.error(Kind::TooMany));
            }
            targets.push(self.object()?);
            if !self.goes_on("]")? {
                return Ok(targets);
            }
        }
    }

    /// Consumes a comma, or `end`: whether it was the comma.
    fn goes_on(&mut self, end: &str) -> Result<bool, AnswerError> {
        self.space()?;
        match self.next() {
            Some(b',') => {
                self.at += 1;
                self.space().map(|()| true)
            }
            _ => self.sign(end).map(|()| false),
        }
    }

    /// A target. What is on it lies in its box, or the answer contradicts itself.
    fn object(&mut self) -> Result<GridPrompt, AnswerError> {
        let start = self.at;
        self.sign("{")?;
        self.space()?;
        let (mut seen, mut bbox, mut points) = (Vec::new(), None, Vec::new());
        loop {
            let member = self.key(&seen)?;
            seen.push(member);
            self.space()?;
            self.sign(":")?;
            self.space()?;
            match member {
                Member::Box => bbox = Some(self.bbox()?),
                Member::Point => points = self.points()?,
                Member::Label => self.label()?,
            }
            if !self.goes_on("}")? {
                break;
            }
        }
        let Some(bbox) = bbox else {
            let kind = if points.is_empty() { Kind::Unexpected } else { Kind::NoBox };
            return Err(AnswerError::new(kind, start));
        };
        if points.iter().any(|p| !bbox.contains(*p)) {
            return Err(AnswerError::new(Kind::OutsideBox, start));
        }
        let group: Vec<_> = points.into_iter().map(|p| (p, true)).collect();
        Ok(GridPrompt { bbox, groups: if group.is_empty() { Vec::new() } else { vec![group] } })
    }

    /// The key of a member that was not seen yet.
    fn key(&mut self, seen: &[Member]) -> Result<Member, AnswerError> {
        let known: &[Member] = match (self.held, seen.is_empty()) {
            (true, true) => &[Member::Box],
            (true, false) => &[Member::Label],
            (false, _) => &[Member::Box, Member::Point, Member::Label],
        };
        let found = known.iter().filter(|member| !seen.contains(member)).find_map(|member| {
            let quoted = format!("\"{}\"", self.words.key(*member));
            self.begins(&quoted).then_some((*member, quoted))
        });
        let (member, quoted) = found.ok_or_else(|| self.error(Kind::Unexpected))?;
        self.skip(&quoted);
        Ok(member)
    }

    fn bbox(&mut self) -> Result<BBox<Grid>, AnswerError> {
        let start = self.at;
        let mut corner = [0u32; 4];
        self.sign("[")?;
        for slot in 0..4 {
            if slot > 0 {
                self.comma()?;
            }
            let side = self.dialect.scale().of_slot(slot);
            // Who is held to a box leaves room for its second corner.
            let (least, most) = match (self.held, slot < 2) {
                (false, _) => (0, side),
                (true, true) => (0, side.saturating_sub(1)),
                (true, false) => (corner[slot - 2] + 1, side),
            };
            self.space()?;
            corner[slot] = self.number(side, (least, most))?;
        }
        self.space()?;
        self.sign("]")?;
        checked_box(corner, start)
    }

    fn comma(&mut self) -> Result<(), AnswerError> {
        self.space()?;
        self.sign(",")
    }

    /// A point, or a list of points.
    fn points(&mut self) -> Result<Vec<Point<Grid>>, AnswerError> {
        let inner = self.rest().strip_prefix('[').map(str::trim_start);
        if !inner.is_some_and(|inner| inner.starts_with('[')) {
            return Ok(vec![self.point()?]);
        }
        self.sign("[")?;
        self.space()?;
        let mut points = Vec::new();
        loop {
            if points.len() == MAX_POINTS {
                return Err(self.error(Kind::TooMany));
            }
            points.push(self.point()?);
            if !self.goes_on("]")? {
                return Ok(points);
            }
        }
    }

    fn point(&mut self) -> Result<Point<Grid>, AnswerError> {
        let scale = self.dialect.scale();
        self.sign("[")?;
        self.space()?;
        let x = self.number(scale.x, (0, scale.x))?;
        self.comma()?;
        self.space()?;
        let y = self.number(scale.y, (0, scale.y))?;
        self.space()?;
        self.sign("]")?;
        Ok(Point::new(x as f32, y as f32))
    }

    /// A coordinate of an axis of `side` steps, within `least..=most`. One at the end of the text must be able to become
    /// one, and stands for the smallest with the fewest digits more.
    fn number(&mut self, side: u32, (least, most): (u32, u32)) -> Result<u32, AnswerError> {
        let digits = self.rest().bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return match self.next() {
                Some(_) => Err(self.error(Kind::NotANumber)),
                None => {
                    self.missing += least.to_string().len();
                    Ok(least)
                }
            };
        }
        let written = &self.rest()[..digits];
        let (behind, start) = (self.text.as_bytes().get(self.at + digits), self.at);
        if written.len() > 1 && written.starts_with('0') {
            return Err(self.error(Kind::NotANumber));
        }
        if behind.is_some_and(|b| b.is_ascii_alphabetic() || matches!(b, b'.' | b'+' | b'-')) {
            return Err(self.error(Kind::NotANumber));
        }
        let value = written.parse::<u32>().ok().filter(|v| digits <= self.dialect.digits() && *v <= side);
        let value = value.ok_or_else(|| self.error(Kind::OutOfRange))?;
        self.at += digits;
        if behind.is_some() {
            return match (least..=most).contains(&value) {
                true => Ok(value),
                false => Err(AnswerError::new(Kind::Inverted, start)),
            };
        }
        let (more, value) = extended(value, (least, most)).ok_or(AnswerError::new(Kind::OutOfRange, start))?;
        self.missing += more;
        Ok(value)
    }

    /// A string, which nobody reads.
    fn label(&mut self) -> Result<(), AnswerError> {
        let (start, most) = (self.at, MAX_LABEL[usize::from(self.held)]);
        self.sign("\"")?;
        let Some(end) = self.closing_quote()? else {
            self.missing += 1;
            return if self.text.len() - start < most { Ok(()) } else { Err(self.error(Kind::TooLong)) };
        };
        self.at = end;
        if end - start > most {
            return Err(AnswerError::new(Kind::TooLong, start));
        }
        let read = serde_json::from_str::<String>(&self.text[start..end]);
        read.map(|_| ()).map_err(|_| AnswerError::new(Kind::Unexpected, start))
    }

    /// Where the string that begins before this place ends, `None` behind the end of the text.
    fn closing_quote(&mut self) -> Result<Option<usize>, AnswerError> {
        let mut escaped = false;
        for (i, byte) in self.rest().bytes().enumerate() {
            match (byte, escaped) {
                (b'"', false) => return Ok(Some(self.at + i + 1)),
                // Held, an answer does without escapes, which it could be cut off in.
                (0..0x20, _) | (b'\\', false) if self.held => {
                    return Err(AnswerError::new(Kind::Unexpected, self.at + i));
                }
                _ => escaped = byte == b'\\' && !escaped,
            }
        }
        self.at = self.text.len();
        Ok(None)
    }
}

/// How many digits must follow those of `value` for a number within `least..=most`, and the smallest of those numbers.
fn extended(value: u32, (least, most): (u32, u32)) -> Option<(usize, u32)> {
    let (mut from, mut to) = (u64::from(value), u64::from(value));
    for more in 0.. {
        if from > u64::from(most) || (more > 0 && value == 0) {
            break;
        }
        if to >= u64::from(least) {
            return Some((more, from.max(u64::from(least)) as u32));
        }
        (from, to) = (from * 10, to * 10 + 9);
    }
    None
}
