//! Questions that are answered with yes or no: many in one pass, their answers drafted.

use std::time::Instant;

use super::decoded::are_near;
use super::{DECODER, Mllm, Pass, softmax};
use crate::engine::Tensor;
use crate::model::branch::Tree;
use crate::model::{KvCache, ModelError, check_deadline};
use crate::prompt::MIN_ANSWER_MASS;

/// Most question tokens in one pass; bounds the attention bias, which grows with their square.
const MAX_BRANCH_TOKENS: usize = 512;
/// Most guessed answers in one pass, beside them.
const MAX_GUESSES: usize = 256;
/// Most tokens behind a conversation in one pass that are not in each other's way, so do not make it longer.
pub(crate) const MAX_TREE_TOKENS: usize = MAX_BRANCH_TOKENS + MAX_GUESSES;

/// Probabilities of yes and of no, over the whole vocabulary.
pub type YesNo = (f32, f32);

/// A question whose answers are yes or no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// How many answers follow, one token each; at least 1.
    pub answers: usize,
    /// What they are guessed to be, yes or no in their order. May be too short, too long or wrong: that changes the
    /// number of passes and nothing else.
    pub draft: Vec<bool>,
}

impl Question {
    /// The guesses for answers `from` on that are of use: the last answer's is not, for nothing follows it.
    fn draft_from(&self, from: usize) -> &[bool] {
        let end = self.draft.len().min(self.answers.saturating_sub(1));
        self.draft.get(from..end).unwrap_or_default()
    }
}

/// A question in work.
struct Asked<'a> {
    question: &'a Question,
    answers: Vec<YesNo>,
    /// The nodes that the next pass feeds or has fed: one that is sure, then those of guessed answers.
    path: Vec<usize>,
}

impl Asked<'_> {
    fn is_done(&self) -> bool {
        self.answers.len() == self.question.answers
    }
}

impl Mllm {
    /// Probabilities of yes and no for each answer of each question behind `cache` and `pending`.
    ///
    /// All questions share the conversation and their common beginnings, and go through in one pass (a few, where
    /// they are very many). Answers of a question are drafted in the same pass; after the first that was guessed wrong,
    /// or where nothing was guessed, it takes one more pass for all questions together. Each probability is read behind
    /// the answers that the model gave before, whatever was guessed. A question that the model does not answer with yes
    /// or no ends there: its further answers are (0, 0).
    ///
    /// # Errors
    /// Engine failures, misshapen outputs, a conversation that is too long, a missed deadline.
    pub fn ask(
        &mut self,
        cache: &KvCache,
        pending: &[u32],
        questions: &[Question],
        deadline: Option<Instant>,
    ) -> Result<Vec<Vec<YesNo>>, ModelError> {
        let mut answers = Vec::with_capacity(questions.len());
        let mut rest = questions;
        while !rest.is_empty() {
            let (mut tree, mut leaves) = (Tree::default(), Vec::new());
            for question in rest {
                let tokens = [pending, &question.tokens].concat();
                if !leaves.is_empty() && tree.len() + tree.missing(&tokens) > MAX_BRANCH_TOKENS {
                    break;
                }
                let Some(leaf) = tree.extend(&tokens) else {
                    return Err(ModelError::Tokenize("question has no tokens".into()));
                };
                leaves.push(leaf);
            }
            let (now, later) = rest.split_at(leaves.len());
            answers.extend(self.ask_tree(cache, tree, &leaves, now, deadline)?);
            rest = later;
        }
        Ok(answers)
    }

    fn ask_tree(
        &mut self,
        cache: &KvCache,
        mut tree: Tree,
        leaves: &[usize],
        questions: &[Question],
        deadline: Option<Instant>,
    ) -> Result<Vec<Vec<YesNo>>, ModelError> {
        let base = cache.tokens();
        let new = |(question, leaf): (_, &usize)| Asked { question, answers: Vec::new(), path: vec![*leaf] };
        let mut asked: Vec<Asked<'_>> = questions.iter().zip(leaves).map(new).collect();
        let (mut fed, mut grown): (usize, Option<KvCache>) = (0, None);
        loop {
            let mut going_on: Vec<&mut Asked<'_>> = asked.iter_mut().filter(|a| !a.is_done()).collect();
            if going_on.is_empty() {
                return Ok(asked.into_iter().map(|a| a.answers).collect());
            }
            check_deadline(deadline)?;
            let mut budget = MAX_GUESSES;
            going_on.iter_mut().for_each(|a| self.draft(a, &mut tree, base, &mut budget));
            let wanted: Vec<usize> = going_on.iter().flat_map(|a| a.path.iter().copied()).collect();
            let (rows, mut next) = self.tree_pass(cache, grown.as_ref(), &tree, fed, &wanted)?;
            fed = tree.len();
            let mut rows = rows.into_iter();
            for a in &mut going_on {
                let rows = rows.by_ref().take(a.path.len()).collect();
                self.hear(a, rows, &mut tree)?;
            }
            // What was guessed wrong and who is done must not fill the cache: a bad draft would make it grow without end.
            let places = tree.keep(going_on.iter().filter(|a| !a.is_done()).flat_map(|a| a.path.iter().copied()));
            going_on.iter_mut().flat_map(|a| a.path.iter_mut()).for_each(|node| {
                *node = places[*node].expect("it is kept");
            });
            let kept: Vec<usize> = (0..fed).filter(|i| places[*i].is_some()).collect();
            // What an engine keeps is moved where it is only if nobody else sees it.
            drop(grown.take());
            next.keep(&self.layout, base, &kept)?;
            (fed, grown) = (kept.len(), Some(next));
        }
    }

    /// Puts the guessed answers of `asked` behind what is sure, as far as they fit and `budget` goes.
    fn draft(&mut self, asked: &mut Asked<'_>, tree: &mut Tree, base: usize, budget: &mut usize) {
        let Some(mut leaf) = asked.path.last().copied() else { return };
        let (yes, no) = self.speech.yes_and_no();
        let room = self.room(base + tree.depth(leaf) + 1).min(*budget);
        for guess in asked.question.draft_from(asked.answers.len()).iter().take(room) {
            leaf = tree.push(leaf, if *guess { yes } else { no });
            asked.path.push(leaf);
            self.decoded.drafted += 1;
            *budget -= 1;
        }
    }

    /// Reads the answers behind the nodes of `asked`'s path, up to the first that was guessed wrong or not at all; that
    /// one is the path of the next pass, which is empty where none is needed.
    fn hear(&mut self, asked: &mut Asked<'_>, rows: Vec<Vec<f32>>, tree: &mut Tree) -> Result<(), ModelError> {
        let (yes, no) = self.speech.yes_and_no();
        let path = std::mem::take(&mut asked.path);
        for (i, row) in rows.into_iter().enumerate() {
            let p = softmax(row)?;
            let answer = (probability(&p, yes)?, probability(&p, no)?);
            self.decoded.token(are_near(answer.0, answer.1));
            asked.answers.push(answer);
            if asked.is_done() {
                return Ok(());
            }
            if answer.0 + answer.1 < MIN_ANSWER_MASS {
                asked.answers.resize(asked.question.answers, (0.0, 0.0));
                return Ok(());
            }
            let said = if answer.0 > answer.1 { yes } else { no };
            if path.get(i + 1).is_none_or(|guess| tree.token(*guess) != said) {
                asked.path = vec![tree.push(path[i], said)];
                return Ok(());
            }
            self.decoded.accepted += 1;
        }
        Ok(())
    }

    /// Feeds the nodes of `tree` from `first` on, behind `cache` or, in `grown`, behind it and the nodes before them;
    /// the logits of the nodes `wanted`, none of them before `first`.
    fn tree_pass(
        &mut self,
        cache: &KvCache,
        grown: Option<&KvCache>,
        tree: &Tree,
        first: usize,
        wanted: &[usize],
    ) -> Result<(Vec<Vec<f32>>, KvCache), ModelError> {
        let base = cache.tokens();
        let ids = tree.tokens(first);
        let positions = tree.positions(first, base);
        self.check_length(positions.iter().max().map_or(0, |p| *p as usize + 1))?;
        let shift = cache.shift();
        let embeds = Tensor::f32(&[1, ids.len(), self.width], self.embed(&ids)?);
        self.pass(Pass {
            cache: grown.unwrap_or(cache),
            embeds,
            deepstack: Vec::new(),
            positions: positions.into_iter().map(|at| [at + shift; 3]).collect(),
            bias: tree.bias(first, base),
            logits_at: wanted.iter().map(|node| (node - first) as i32).collect(),
        })
    }
}

fn probability(p: &[f32], token: u32) -> Result<f32, ModelError> {
    p.get(token as usize).copied().ok_or_else(|| ModelError::Output {
        engine: DECODER,
        tensor: "logits",
        what: format!("covers {} tokens, not token {token}", p.len()),
    })
}
