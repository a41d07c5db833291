//! How far the dimensions of a graph reach, by their names.

use std::collections::BTreeMap;

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::safe::{Dimension, Input, Reach};

/// An optimisation profile by name of dimension: smallest, usual and largest size of each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile(BTreeMap<String, [u32; 3]>);

impl Profile {
    /// A profile of `(name, [smallest, usual, largest])`.
    pub fn new<'a>(dimensions: impl IntoIterator<Item = (&'a str, [u32; 3])>) -> Self {
        Self(dimensions.into_iter().map(|(name, reach)| (name.to_owned(), reach)).collect())
    }

    /// The shapes of every input of `graph` that varies.
    ///
    /// # Errors
    /// [`Kind::Shapes`] for a dimension that the profile does not name, and for sizes that are not in order.
    pub(super) fn reaches(&self, graph: &str, inputs: &[Input]) -> Result<Vec<(String, Reach)>, TensorRtError> {
        let varies = |input: &&Input| input.dims.iter().any(|dim| matches!(dim, Dimension::Named(_)));
        inputs.iter().filter(varies).map(|input| Ok((input.name.clone(), self.reach(graph, input)?))).collect()
    }

    fn reach(&self, graph: &str, input: &Input) -> Result<Reach, TensorRtError> {
        let size = |dim: &Dimension| match dim {
            Dimension::Fixed(size) => Ok([*size; 3]),
            Dimension::Named(name) => {
                let refuse = |why: String| TensorRtError::new(Kind::Shapes, format!("graph `{graph}`"), why);
                let missing = || refuse(format!("nothing says how far `{name}` of input `{}` reaches", input.name));
                let sizes = self.0.get(name).ok_or_else(missing)?;
                match sizes.is_sorted() {
                    true => Ok(sizes.map(i64::from)),
                    false => Err(refuse(format!("`{name}` is to reach over {sizes:?}, which is not in order"))),
                }
            }
        };
        let sizes = input.dims.iter().map(size).collect::<Result<Vec<_>, _>>()?;
        let [least, usual, most] = [0, 1, 2].map(|which| sizes.iter().map(|size| size[which]).collect());
        Ok(Reach { least, usual, most })
    }

    /// As text, for the key of a plan.
    pub(super) fn to_text(&self) -> String {
        let dimension = |(name, [least, usual, most]): (&String, &[u32; 3])| format!("{name}={least}:{usual}:{most}");
        self.0.iter().map(dimension).collect::<Vec<_>>().join(",")
    }
}
