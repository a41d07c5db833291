//! How much of the method is used, and how much of it a language model was taught.

use super::Dialect;
pub use crate::engine::bundle::Strategy;

/// A language model was not taught the strategy it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use strategy `{}`: the language model was not taught it, the bundle has no [dialect.{}]",
    .strategy.word(), .strategy.word())]
pub struct StrategyError {
    strategy: Strategy,
}

impl StrategyError {
    pub(crate) fn new(strategy: Strategy) -> Self {
        Self { strategy }
    }

    /// What was asked for.
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }
}

/// The strategies of a language model: those it was taught, and the one that is used where none is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strategies {
    usual: Strategy,
    ppg: bool,
}

impl Strategies {
    /// Those of a model that was taught boxes and PQPP, and PPG too where `ppg`.
    ///
    /// # Errors
    /// Where `usual` is none of them.
    pub fn new(usual: Strategy, ppg: bool) -> Result<Self, StrategyError> {
        let strategies = Self { usual, ppg };
        strategies.choose(Some(usual)).map(|_| strategies)
    }

    /// Those of a model that speaks `dialect`; where `usual` is `None`, the dialect says which is used by default.
    ///
    /// # Errors
    /// Where `usual` is none of them.
    pub fn of(dialect: &Dialect, usual: impl Into<Option<Strategy>>) -> Result<Self, StrategyError> {
        Self::new(usual.into().unwrap_or(dialect.strategy()), dialect.ppg().is_some())
    }

    /// The one that is used where none is asked for.
    pub fn usual(&self) -> Strategy {
        self.usual
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Strategy> {
        let ppg = self.ppg;
        Strategy::ALL.into_iter().filter(move |s| ppg || *s != Strategy::Ppg)
    }

    /// The one to use where `asked` is asked for.
    ///
    /// # Errors
    /// Where the model was not taught it.
    pub fn choose(&self, asked: Option<Strategy>) -> Result<Strategy, StrategyError> {
        let strategy = asked.unwrap_or(self.usual);
        if self.all().any(|s| s == strategy) { Ok(strategy) } else { Err(StrategyError::new(strategy)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::dialect::tests::words;
    use crate::prompt::ppg::tests::ppg_words;

    #[test]
    fn a_dialect_without_ppg_refuses_it_by_name() {
        let without = Strategies::of(&words(|_| ()), Strategy::Pqpp).expect("PQPP is always there");
        assert_eq!(without.all().collect::<Vec<_>>(), [Strategy::Box, Strategy::Pqpp]);
        assert_eq!(without.choose(None), Ok(Strategy::Pqpp));
        assert_eq!(without.choose(Some(Strategy::Box)), Ok(Strategy::Box));
        let error = without.choose(Some(Strategy::Ppg)).expect_err("was not taught");
        assert_eq!(error.strategy(), Strategy::Ppg);
        assert!(error.to_string().contains("[dialect.ppg]"), "{error}");
        assert!(Strategies::of(&words(|_| ()), Strategy::Ppg).is_err());
    }

    #[test]
    fn a_dialect_with_ppg_has_all() {
        let dialect = words(|w| w.ppg = Some(ppg_words()));
        let with = Strategies::of(&dialect, Strategy::Ppg).expect("was taught");
        assert_eq!(with.all().collect::<Vec<_>>(), Strategy::ALL);
        assert_eq!((with.usual(), with.choose(None)), (Strategy::Ppg, Ok(Strategy::Ppg)));
    }
}
