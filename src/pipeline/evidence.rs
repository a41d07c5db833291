//! What the probabilities of an answer's tokens say about its boxes.

use std::collections::HashMap;

use crate::geometry::GridScale;

/// How far a coordinate may be off and still count as the same edge, as a fraction of the image side.
const EDGE_TOLERANCE: f32 = 0.025;

/// One decoded token of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    /// Its probability.
    p: f32,
    /// Where it is a coordinate: the probability of that edge, give or take [`EDGE_TOLERANCE`].
    edge: Option<f32>,
    /// The probability that it is counted on from here.
    counts_on: f32,
}

/// Collects the steps of one answer.
pub(super) struct Evidence<'a> {
    numbers: &'a [u32],
    values: HashMap<u32, usize>,
    reach: usize,
    /// The token between boxes that are counted.
    count_on: Option<u32>,
    steps: Vec<Step>,
}

impl<'a> Evidence<'a> {
    /// `numbers` are the tokens of the grid values; without them there is no evidence about edges. `count_on` stands
    /// between boxes that are counted up to the target.
    pub(super) fn new(numbers: Option<&'a [u32]>, scale: GridScale, count_on: Option<u32>) -> Self {
        let numbers = numbers.unwrap_or_default();
        let values = numbers.iter().enumerate().map(|(value, token)| (*token, value)).collect();
        let reach = (scale.x as f32 * EDGE_TOLERANCE).round() as usize;
        Self { numbers, values, reach, count_on, steps: Vec::new() }
    }

    /// Notes a step: the probabilities of all tokens and the one that was chosen.
    pub(super) fn note(&mut self, p: &[f32], token: u32) {
        let of = |token: u32| p.get(token as usize).copied().unwrap_or(0.0);
        let edge = self.values.get(&token).map(|&value| {
            let near = value.saturating_sub(self.reach)..self.numbers.len().min(value + self.reach + 1);
            self.numbers[near].iter().map(|t| of(*t)).sum::<f32>().min(1.0)
        });
        self.steps.push(Step { p: of(token), edge, counts_on: self.count_on.map_or(0.0, of) });
    }

    /// For each of `count` targets, the probability that it starts times that of its box's least certain edge.
    ///
    /// Each target has `coordinates` numbers, at least four, of which the first four are its box. The first target
    /// starts with `p_found`. Where more boxes were said than there are targets, they were counted up to the only one,
    /// which is as sure as all of them together; where boxes may be counted, that the count ends here counts too. Where the
    /// dialect's numbers are not one token each, nothing is known about edges and later targets, and `p_found` stands for
    /// every one.
    pub(super) fn boxes(&self, count: usize, coordinates: usize, p_found: f32) -> Vec<f32> {
        let said: Vec<_> = self.steps.iter().enumerate().filter_map(|(at, s)| s.edge.map(|edge| (at, edge))).collect();
        let boxes = said.chunks_exact(coordinates);
        if said.is_empty() || !boxes.remainder().is_empty() {
            return vec![p_found; count];
        }
        let before = |target: &[(usize, f32)], steps| target[0].0.checked_sub(steps).map_or(1.0, |at| self.steps[at].p);
        let confidence = |(i, target): (usize, &[(usize, f32)])| {
            // The sign before the first number is what opened the box.
            let p_start = if i == 0 { p_found } else { before(target, 1) };
            p_start * target.iter().take(4).map(|(_, edge)| *edge).fold(1.0, f32::min)
        };
        match (count, boxes.len()) {
            (1, _) => {
                // Before what opened a later box stands the sign that counts on; the last step is the end.
                let counted_on = boxes.clone().skip(1).map(|target| before(target, 2));
                let ended = 1.0 - self.steps.last().map_or(0.0, |end| end.counts_on);
                vec![counted_on.chain(boxes.enumerate().map(confidence)).product::<f32>() * ended]
            }
            (count, said) if count == said => boxes.enumerate().map(confidence).collect(),
            _ => vec![p_found; count],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token 0 opens a box, tokens 1..=101 are the values 0..=100; behind them are a sign and an end.
    fn numbers() -> Vec<u32> {
        (1..=101).collect()
    }

    fn spread(pairs: &[(u32, f32)]) -> Vec<f32> {
        let mut p = vec![0.0; 104];
        pairs.iter().for_each(|(token, v)| p[*token as usize] = *v);
        p
    }

    #[test]
    fn neighbours_make_an_edge_certain_and_rivals_do_not() {
        let numbers = numbers();
        let mut e = Evidence::new(Some(&numbers), GridScale::square(100), None);
        e.note(&spread(&[(0, 0.8)]), 0);
        e.note(&spread(&[(10, 0.3), (11, 0.3), (9, 0.3)]), 10);
        // As likely on the other side of the image.
        e.note(&spread(&[(20, 0.5), (80, 0.5)]), 20);
        e.note(&spread(&[(40, 1.0)]), 40);
        e.note(&spread(&[(50, 1.0)]), 50);
        let [c] = e.boxes(1, 4, 0.8)[..] else { panic!("one box") };
        assert!((c - 0.4).abs() < 1e-6, "{c}");
    }

    #[test]
    fn a_later_box_counts_its_own_start() {
        let numbers = numbers();
        let mut e = Evidence::new(Some(&numbers), GridScale::square(100), None);
        for p_open in [0.9, 0.6] {
            e.note(&spread(&[(0, p_open)]), 0);
            (0..4).for_each(|_| e.note(&spread(&[(7, 1.0)]), 7));
        }
        let c = e.boxes(2, 4, 0.9);
        assert!((c[0] - 0.9).abs() < 1e-6 && (c[1] - 0.6).abs() < 1e-6, "{c:?}");
    }

    #[test]
    fn what_was_counted_is_as_sure_as_all_of_it() {
        let (numbers, comma) = (numbers(), 102);
        let mut e = Evidence::new(Some(&numbers), GridScale::square(100), Some(comma));
        for (p_open, p_edge, p_comma) in [(0.9, 0.8, 0.7), (0.5, 0.6, 0.1)] {
            e.note(&spread(&[(0, p_open)]), 0);
            (0..4).for_each(|_| e.note(&spread(&[(7, p_edge)]), 7));
            let last = p_comma < 0.5;
            e.note(&spread(&[(comma, p_comma), (103, 1.0 - p_comma)]), if last { 103 } else { comma });
        }
        let [c] = e.boxes(1, 4, 0.9)[..] else { panic!("one target") };
        assert!((c - 0.9 * 0.8 * 0.7 * 0.5 * 0.6 * 0.9).abs() < 1e-6, "{c}");
    }

    #[test]
    fn a_count_that_might_have_gone_on_is_not_sure() {
        let (numbers, comma) = (numbers(), 102);
        let mut e = Evidence::new(Some(&numbers), GridScale::square(100), Some(comma));
        e.note(&spread(&[(0, 0.9)]), 0);
        (0..4).for_each(|_| e.note(&spread(&[(7, 1.0)]), 7));
        e.note(&spread(&[(comma, 0.4), (103, 0.6)]), 103);
        let [c] = e.boxes(1, 4, 0.9)[..] else { panic!("one target") };
        assert!((c - 0.9 * 0.6).abs() < 1e-6, "{c}");
    }

    #[test]
    fn points_say_nothing_about_edges() {
        let numbers = numbers();
        let mut e = Evidence::new(Some(&numbers), GridScale::square(100), None);
        for p_open in [0.9, 0.5] {
            e.note(&spread(&[(0, p_open)]), 0);
            (0..4).for_each(|_| e.note(&spread(&[(7, 0.8)]), 7));
            (0..2).for_each(|_| e.note(&spread(&[(7, 0.1)]), 7));
        }
        let c = e.boxes(2, 6, 0.9);
        assert!((c[0] - 0.72).abs() < 1e-6 && (c[1] - 0.4).abs() < 1e-6, "{c:?}");
    }

    #[test]
    fn without_number_tokens_only_the_start_is_known() {
        let mut e = Evidence::new(None, GridScale::square(100), None);
        e.note(&spread(&[(7, 1.0)]), 7);
        assert_eq!(e.boxes(2, 4, 0.7), [0.7, 0.7]);
    }
}
