//! Which scenes, backgrounds and templates belong to training and which are held out.

use std::fmt;

/// A split of the synthetic data. Seeds, backgrounds and templates of [`Split::Test`] occur in no other split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Split {
    /// Scenes to learn from.
    Train,
    /// Unseen scenes with the backgrounds and templates of training.
    Val,
    /// Fixed scenes with held-out backgrounds and held-out templates.
    Test,
}

impl Split {
    /// The number that enters the seed of every scene of this split.
    pub(crate) fn salt(self) -> u64 {
        match self {
            Self::Train => 1,
            Self::Val => 2,
            Self::Test => 3,
        }
    }

    /// Whether backgrounds and templates are the held-out ones.
    pub fn held_out(self) -> bool {
        self == Self::Test
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        })
    }
}
