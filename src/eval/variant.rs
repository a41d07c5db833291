//! What is compared over the same weights: a strategy and, with PQPP, where it asks about points.

use std::fmt;
use std::str::FromStr;

use crate::pipeline::{Command, Strategies, Strategy};
use crate::prompt::Candidates;

/// Most columns or rows of a grid.
const MAX_SIDE: usize = 32;

/// One way of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Variant {
    /// How the prompt is got from the language model.
    pub strategy: Strategy,
    /// Where PQPP asks; `None` for the bundle's own layout, and with every other strategy.
    pub candidates: Option<Candidates>,
}

impl Variant {
    /// `strategy` as the bundle has it.
    pub fn plain(strategy: Strategy) -> Self {
        Self { strategy, candidates: None }
    }

    /// PQPP with its points laid out as `candidates`.
    pub fn pqpp(candidates: Candidates) -> Self {
        Self { strategy: Strategy::Pqpp, candidates: Some(candidates) }
    }

    /// The paper's comparison: box only, PPG where the model was taught it, PQPP with 3×3, 5×5 and 15 blue-noise points.
    pub fn ablation(strategies: &Strategies) -> Vec<Self> {
        let grid = |n| Self::pqpp(Candidates::Grid { columns: n, rows: n });
        let ppg = strategies.all().filter(|s| *s == Strategy::Ppg).map(Self::plain);
        let pqpp = [grid(3), grid(5), Self::pqpp(Candidates::BlueNoise)];
        [Self::plain(Strategy::Box)].into_iter().chain(ppg).chain(pqpp).collect()
    }

    /// `command`, to be answered this way.
    #[must_use]
    pub fn of(self, command: Command) -> Command {
        let command = command.by(self.strategy);
        match self.candidates {
            Some(candidates) => command.with(candidates),
            None => command,
        }
    }
}

/// `box`, `ppg`, `pqpp`, `pqpp-5x5`, `pqpp-blue-noise`.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.strategy.word())?;
        self.candidates.map_or(Ok(()), |c| write!(f, "-{c}"))
    }
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(strategy) = Strategy::ALL.into_iter().find(|s| s.word() == text) {
            return Ok(Self::plain(strategy));
        }
        let side = |t: &str| t.parse::<usize>().ok().filter(|n| (1..=MAX_SIDE).contains(n));
        let grid = |t: &str| {
            let (columns, rows) = t.split_once('x')?;
            Some(Candidates::Grid { columns: side(columns)?, rows: side(rows)? })
        };
        let layout = text.strip_prefix("pqpp-").and_then(|t| match t {
            "blue-noise" => Some(Candidates::BlueNoise),
            t => grid(t),
        });
        layout.map(Self::pqpp).ok_or_else(|| {
            format!("`{text}` is none of box, ppg, pqpp, pqpp-blue-noise and pqpp-COLUMNSxROWS of 1 to {MAX_SIDE}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let with_ppg = Strategies::new(Strategy::Pqpp, true).expect("knows PQPP");
        let all = Variant::ablation(&with_ppg);
        let names: Vec<String> = all.iter().map(Variant::to_string).collect();
        assert_eq!(names, ["box", "ppg", "pqpp-3x3", "pqpp-5x5", "pqpp-blue-noise"]);
        assert_eq!(names.iter().map(|n| n.parse()).collect::<Result<Vec<Variant>, _>>(), Ok(all));
        assert_eq!("pqpp".parse(), Ok(Variant::plain(Strategy::Pqpp)));
        for text in ["", "pqpp-", "pqpp-0x3", "pqpp-3x33", "pqpp-3", "box-3x3", "Box"] {
            assert!(text.parse::<Variant>().is_err(), "{text}");
        }
    }

    #[test]
    fn ppg_is_left_out_where_it_was_not_taught() {
        let without = Strategies::new(Strategy::Pqpp, false).expect("knows PQPP");
        assert!(Variant::ablation(&without).iter().all(|v| v.strategy != Strategy::Ppg));
    }
}
