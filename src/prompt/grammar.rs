//! Which texts a round-1 answer can begin with: what a decoder may say next so that the answer can be read.

use super::codec::MAX_BOXES;
use super::dialect::Dialect;
use super::template::{Piece, begin_alike};

/// How far a text is an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No answer begins with it.
    Dead,
    /// Some answer begins with it.
    Open,
    /// Some answer begins with it, where a digit follows at once: it ends within a number of a template. (In JSON, where
    /// numbers have no length of their own, that is [`Progress::Open`].)
    Within,
    /// It is an answer; others may begin with it.
    Whole,
}

/// A walk over a text; white space between signs carries no meaning.
struct Walk<'a> {
    rest: &'a str,
}

/// The text is over, or is no answer's beginning; either ends the walk.
type Step<T> = Result<T, Progress>;

impl Walk<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn is_over(&mut self) -> bool {
        self.skip_space();
        self.rest.is_empty()
    }

    fn literal(&mut self, literal: &str) -> Step<()> {
        for expected in literal.chars().filter(|c| !c.is_whitespace()) {
            self.skip_space();
            let Some(found) = self.rest.chars().next() else { return Err(Progress::Open) };
            if !found.eq_ignore_ascii_case(&expected) {
                return Err(Progress::Dead);
            }
            self.rest = &self.rest[found.len_utf8()..];
        }
        Ok(())
    }

    /// A number of `digits` digits within `least..=most`; one that is not finished must be able to become one.
    fn number(&mut self, digits: usize, least: u32, most: u32) -> Step<u32> {
        self.skip_space();
        let signs = self.rest.bytes().take_while(u8::is_ascii_digit).take(digits);
        let (read, value) = signs.fold((0, 0u32), |(n, value), sign| (n + 1, 10 * value + u32::from(sign - b'0')));
        self.rest = &self.rest[read..];
        // A dialect has at most six digits, so none of this overflows.
        let step = 10u32.pow((digits - read) as u32);
        let (from, to) = (value * step, value * step + step - 1);
        if to < least || from > most || (read < digits && !self.rest.is_empty()) {
            return Err(Progress::Dead);
        }
        match read {
            0 => Err(Progress::Open),
            _ if read < digits => Err(Progress::Within),
            _ => Ok(value),
        }
    }

    /// A box with positive width and height.
    fn bbox(&mut self, dialect: &Dialect) -> Step<()> {
        let mut corner = [None; 4];
        for piece in dialect.box_template().pieces() {
            match piece {
                Piece::Text(text) => self.literal(text)?,
                Piece::Slot(slot) => {
                    let scale = dialect.scale().of_slot(*slot);
                    // x1, y1, x2, y2: the first two leave room for the others, in whatever order they are said.
                    let (least, most) = match (*slot < 2, corner[(slot + 2) % 4]) {
                        (true, far) => (0, far.unwrap_or(scale).saturating_sub(1)),
                        (false, near) => (near.map_or(1, |near: u32| near + 1), scale),
                    };
                    corner[*slot] = Some(self.number(dialect.digits(), least, most)?);
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, dialect: &Dialect) -> Step<()> {
        if self.is_over() {
            return Err(Progress::Open);
        }
        if !self.starts_box(dialect) {
            self.literal(dialect.absent_answer())?;
            return if self.is_over() { Ok(()) } else { Err(Progress::Dead) };
        }
        for said in 1..=MAX_BOXES {
            self.bbox(dialect)?;
            if self.is_over() {
                return Ok(());
            }
            if let (1, Some(sign)) = (said, dialect.count_on())
                && begin_alike(sign, self.rest)
            {
                return self.counted(sign, dialect);
            }
        }
        Err(Progress::Dead)
    }

    /// Boxes after the first, `sign` before each.
    fn counted(&mut self, sign: &str, dialect: &Dialect) -> Step<()> {
        for _ in 1..MAX_BOXES {
            self.literal(sign)?;
            self.bbox(dialect)?;
            if self.is_over() {
                return Ok(());
            }
        }
        Err(Progress::Dead)
    }

    /// The first sign of a box is never that of the absent answer.
    fn starts_box(&self, dialect: &Dialect) -> bool {
        matches!(dialect.box_template().pieces().first(), Some(Piece::Text(opening)) if begin_alike(opening, self.rest))
    }
}

/// How far `text` is a round-1 answer of boxes, or the absent one. What is [`Progress::Whole`] can be read by
/// [`super::parse_answer`]; what is [`Progress::Open`] or [`Progress::Within`] can be made whole.
pub fn progress(text: &str, dialect: &Dialect) -> Progress {
    progress_within(text, usize::MAX, dialect)
}

/// The same, where an answer in JSON that needs more than `room` bytes to become whole is [`Progress::Dead`]: whoever
/// says nothing dead is never cut off, for a token has at least a byte. Answers of boxes by a template are short and of
/// one length each; they take no notice of `room`.
pub fn progress_within(text: &str, room: usize, dialect: &Dialect) -> Progress {
    if dialect.json().is_some() {
        return super::json::progress(text, room, dialect);
    }
    match (Walk { rest: text }).answer(dialect) {
        Ok(()) => Progress::Whole,
        Err(progress) => progress,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompt::dialect::tests::{tabletop, words};
    use crate::prompt::parse_answer;

    #[test]
    fn texts_are_told_apart() {
        let dialect = tabletop();
        let cases = [
            ("", Progress::Open),
            (" ", Progress::Open),
            ("[", Progress::Open),
            ("[12", Progress::Within),
            ("[12 ", Progress::Dead),
            ("[ 120 , 200 , 5", Progress::Within),
            ("[ 120 , 200 , ", Progress::Open),
            ("[999", Progress::Dead),
            ("[500,000,4", Progress::Dead),
            ("[500,000,50", Progress::Within),
            ("[500,000,500", Progress::Dead),
            ("[500,000,501,000", Progress::Dead),
            ("[500,000,501,001]", Progress::Whole),
            ("[500,000,501,001][", Progress::Open),
            ("[500,000,501,001]x", Progress::Dead),
            ("no such", Progress::Open),
            ("No such object", Progress::Whole),
            ("no such object.", Progress::Dead),
            ("yes", Progress::Dead),
        ];
        for (text, wanted) in cases {
            assert_eq!(progress(text, &dialect), wanted, "{text}");
        }
    }

    #[test]
    fn the_order_of_the_corners_is_the_dialects() {
        let dialect = words(|w| w.bbox = "({y2},{x2};{y1},{x1})".into());
        assert_eq!(progress("(000", &dialect), Progress::Dead);
        assert_eq!(progress("(001,1", &dialect), Progress::Within);
        assert_eq!(progress("(001,100;001", &dialect), Progress::Dead);
        assert_eq!(progress("(001,100;000,1", &dialect), Progress::Dead);
        assert_eq!(progress("(001,100;000,099)", &dialect), Progress::Whole);
    }

    proptest! {
        /// Whoever says nothing dead ends up with what can be read, and is never at a loss.
        #[test]
        fn what_is_never_dead_can_be_read(
            picks in proptest::collection::vec(0usize..1000, 80),
            scale in 1u32..1000,
            counts in any::<bool>(),
        ) {
            let dialect = words(|w| {
                w.coordinate_scale = scale;
                w.count_on = counts.then(|| ",".into());
            });
            let signs: Vec<char> = "0123456789[], nosuchbjet".chars().collect();
            let mut text = String::new();
            for pick in picks {
                let next = |sign: &char| format!("{text}{sign}");
                let alive: Vec<String> =
                    signs.iter().map(next).filter(|t| progress(t, &dialect) != Progress::Dead).collect();
                if alive.is_empty() {
                    prop_assert_eq!(progress(&text, &dialect), Progress::Whole);
                    break;
                }
                text.clone_from(&alive[pick % alive.len()]);
                let read = parse_answer(&text, &dialect);
                prop_assert_eq!(read.is_ok(), progress(&text, &dialect) == Progress::Whole, "{}: {:?}", text, read);
            }
        }
    }
}
