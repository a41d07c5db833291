//! A dialect in the tokens of one tokenizer: which tokens decide, and what may be said.

mod opening;

use std::collections::HashSet;
use std::path::Path;

use tokenizers::{ModelWrapper, Tokenizer};

pub use opening::Opening;

use super::ModelError;
use crate::geometry::{BBox, Grid, ModelPx, Point, Size};
use crate::prompt::{
    Answer, CommandError, CommandLimits, CountHint, Dialect, DialectError, DialectErrorKind, GridPrompt, Ppg, Progress,
    Strategy, StrategyError, check_command, names_target, progress_within,
};

/// Largest coordinate scale whose numbers are looked up one by one when a bundle is loaded.
const MAX_LISTED_SCALE: u32 = 9999;

/// A dialect that the tokenizer cuts where the codec has to cut it.
pub struct Speech {
    tokenizer: Tokenizer,
    dialect: Dialect,
    limits: CommandLimits,
    control_tokens: Vec<String>,
    /// Those of them that are marked special.
    special: HashSet<u32>,
    unknown: Option<u32>,
    before_image: Vec<u32>,
    image_token: u32,
    after_image: Vec<u32>,
    end: u32,
    /// Other tokens at which answers end.
    stops: Vec<u32>,
    opening: Opening,
    /// Of PPG's answer, where the model was taught it.
    ppg_opening: Option<Opening>,
    yes: u32,
    no: u32,
    /// The token of every grid value, where each is one token.
    numbers: Option<Vec<u32>>,
    /// A number cannot be said in pieces, and need not be: each is one token, and there is a space between two of those.
    spaced: bool,
}

impl Speech {
    /// Fits `dialect` to `tokenizer`.
    ///
    /// `image_token` stands for the image in the prefix.
    ///
    /// # Errors
    /// [`DialectErrorKind::Token`] where the tokenizer cuts the dialect's texts elsewhere.
    pub(crate) fn new(mut tokenizer: Tokenizer, dialect: Dialect, image_token: u32) -> Result<Self, DialectError> {
        // Settings for training batches; a query is never padded or cut short.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| token_error("tokenizer.json", e.to_string()))?;
        let context = Context::new(&tokenizer, &dialect)?;
        let end = context.single("end_of_answer", dialect.end_of_answer(), &context.proposal)?;
        let opening = context.opening(&context.proposal)?;
        let ppg_opening = dialect.ppg().map(|ppg| context.ppg_opening(ppg, end)).transpose()?;
        let (yes, no) = context.yes_and_no()?;
        let (before_image, after_image) = context.prefix_around(image_token)?;
        let numbers = context.numbers();
        let spaced = context.spaced(numbers.as_deref())?;
        let (control_tokens, unknown) = control_tokens(&tokenizer);
        let added = tokenizer.get_added_tokens_decoder().into_iter();
        let special = added.filter(|(_, token)| token.special).map(|(id, _)| id).collect();
        let limits = CommandLimits::default();
        Ok(Self {
            tokenizer,
            dialect,
            limits,
            control_tokens,
            special,
            unknown,
            before_image,
            image_token,
            after_image,
            end,
            stops: Vec::new(),
            opening,
            ppg_opening,
            yes,
            no,
            numbers,
            spaced,
        })
    }

    /// Other limits on commands.
    #[must_use]
    pub fn with_limits(mut self, limits: CommandLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The dialect.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// The prefix's tokens before and after the image.
    pub fn prefix(&self) -> (&[u32], &[u32]) {
        (&self.before_image, &self.after_image)
    }

    /// The token that stands for the image.
    pub fn image_token(&self) -> u32 {
        self.image_token
    }

    /// Ends answers at `stops` too. Only tokens that stand for no text of a command or an answer are taken: the rest
    /// cannot be meant.
    #[must_use]
    pub(crate) fn with_stops(mut self, stops: &[u32]) -> Self {
        let control =
            |id: u32| self.tokenizer.id_to_token(id).is_some_and(|token| self.control_tokens.contains(&token));
        let goes_on = [Some(self.opening.box_start), self.opening.count_on];
        let begins = |id: u32| goes_on.contains(&Some(id)) || self.opening.absent.contains(&id);
        self.stops = stops.iter().copied().filter(|&id| control(id) && !begins(id)).collect();
        self
    }

    /// Whether an answer ends with `token`: as the dialect says, or where the checkpoint's authors stop it.
    pub fn ends(&self, token: u32) -> bool {
        token == self.end || self.stops.contains(&token)
    }

    /// The token that ends an answer as the model was taught.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// What the first answer of `strategy` can begin with.
    ///
    /// # Errors
    /// Where the model was not taught it.
    pub fn opening(&self, strategy: Strategy) -> Result<&Opening, StrategyError> {
        match strategy {
            Strategy::Box | Strategy::Pqpp => Ok(&self.opening),
            Strategy::Ppg => self.ppg_opening.as_ref().ok_or(StrategyError::new(strategy)),
        }
    }

    /// The tokens whose probabilities are p(yes) and p(no).
    pub fn yes_and_no(&self) -> (u32, u32) {
        (self.yes, self.no)
    }

    /// The token of every grid value `0..=scale`, where each value is one token of its own.
    pub fn numbers(&self) -> Option<&[u32]> {
        self.numbers.as_deref()
    }

    /// Checks text from outside and trims it.
    ///
    /// # Errors
    /// Every [`CommandError`].
    pub fn check(&self, text: &str) -> Result<String, CommandError> {
        let text = check_command(text, self.limits, &self.control_tokens)?;
        let encoding = self.tokenizer.encode(text, false).map_err(|_| CommandError::UnknownWord(text.to_owned()))?;
        let at = encoding.get_ids().iter().position(|id| Some(*id) == self.unknown);
        match at.and_then(|at| encoding.get_offsets().get(at)) {
            Some((from, to)) => Err(CommandError::UnknownWord(text.get(*from..*to).unwrap_or(text).to_owned())),
            None => Ok(text.to_owned()),
        }
    }

    /// The tokens of the first query of `strategy` for a checked command.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`]; [`ModelError::Strategy`] where the model was not taught it.
    pub fn query(&self, strategy: Strategy, hint: CountHint, command: &str) -> Result<Vec<u32>, ModelError> {
        match strategy {
            Strategy::Box | Strategy::Pqpp => self.proposal_query(hint, command),
            Strategy::Ppg => {
                let ppg = self.dialect.ppg().ok_or(StrategyError::new(strategy))?;
                self.encode(&ppg.query(hint, command))
            }
        }
    }

    /// From now on it is spoken about a frame that the model sees resized to `input`.
    ///
    /// # Errors
    /// [`ModelError::Frame`] where pixels are counted and `input` is not known or has sides that cannot be said.
    pub(crate) fn look_at(&mut self, input: Option<Size<ModelPx>>) -> Result<(), ModelError> {
        match input {
            Some(input) => self.dialect.fit(input).map_err(|error| ModelError::Frame(error.to_string())),
            None if self.dialect.counts_pixels() => {
                Err(ModelError::Frame("the dialect counts pixels of an input that is not one resized frame".into()))
            }
            None => Ok(()),
        }
    }

    /// The tokens of the round-1 query for a checked command, and of what every answer to it begins with.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn proposal_query(&self, hint: CountHint, command: &str) -> Result<Vec<u32>, ModelError> {
        let mut query = self.encode(&self.dialect.proposal_query(hint, command))?;
        query.extend(&self.opening.lead);
        Ok(query)
    }

    /// The tokens of the round-2 query for some points of a box.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn points_query(&self, bbox: BBox<Grid>, points: &[Point<Grid>]) -> Result<Vec<u32>, ModelError> {
        let points: String = points.iter().map(|p| self.dialect.write_point(*p)).collect();
        self.encode(&self.dialect.points_query(&self.dialect.write_box(bbox), &points))
    }

    /// The whole answer to the first query of `strategy`, of which the model said `tokens`.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`]; [`ModelError::Strategy`] where the model was not taught it.
    pub fn answer(&self, strategy: Strategy, tokens: &[u32]) -> Result<String, ModelError> {
        self.text(&[self.opening(strategy)?.lead(), tokens].concat())
    }

    /// The text of an answer's tokens, control tokens included: what the model said, verbatim.
    ///
    /// # Errors
    /// [`ModelError::Tokenize`].
    pub fn text(&self, tokens: &[u32]) -> Result<String, ModelError> {
        self.tokenizer.decode(tokens, false).map_err(|e| ModelError::Tokenize(e.to_string()))
    }

    /// Whether a round-1 answer of boxes can begin with `tokens`, and be whole with `room` tokens further; or is all of
    /// them but the last, where that ends it. What [`Opening::lead`] says comes before them. In JSON no other special
    /// token may be said, whatever its text.
    pub fn may_say(&self, tokens: &[u32], room: usize) -> bool {
        let (tokens, wanted) = match tokens.split_last() {
            Some((last, before)) if self.ends(*last) => (before, Progress::Whole),
            _ => (tokens, Progress::Open),
        };
        if self.dialect.is_json() && tokens.last().is_some_and(|last| self.special.contains(last)) {
            return false;
        }
        let Ok(text) = self.answer(Strategy::Box, tokens) else { return false };
        match progress_within(&text, room, &self.dialect) {
            Progress::Whole => true,
            Progress::Open => wanted == Progress::Open,
            Progress::Within => wanted == Progress::Open && !self.spaced,
            Progress::Dead => false,
        }
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| ModelError::Tokenize(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Reads a `tokenizer.json`.
///
/// # Errors
/// [`DialectErrorKind::Token`] where the file is no tokenizer.
pub(crate) fn read_tokenizer(file: &Path) -> Result<Tokenizer, DialectError> {
    Tokenizer::from_file(file).map_err(|e| token_error("tokenizer.json", e.to_string()))
}

/// The text of a token.
///
/// # Errors
/// [`DialectErrorKind::Token`] where there is no such token.
pub(crate) fn token_text(tokenizer: &Tokenizer, token: u32) -> Result<String, DialectError> {
    tokenizer.id_to_token(token).ok_or_else(|| token_error("tokenizer.json", format!("has no token {token}")))
}

/// The texts of the tokens that a command must not contain, and the token for unknown words if there is one.
fn control_tokens(tokenizer: &Tokenizer) -> (Vec<String>, Option<u32>) {
    // Some tokenizers list runs of spaces among their added tokens; those are no control tokens.
    let contents = tokenizer.get_added_tokens_decoder().into_values().map(|t| t.content);
    let mut added: Vec<String> = contents.filter(|t| !t.trim().is_empty()).collect();
    added.sort_unstable();
    let unknown = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.as_deref(),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.as_str()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.as_str()),
        ModelWrapper::Unigram(_) => None,
    };
    let unknown = unknown.and_then(|t| tokenizer.token_to_id(t));
    (added, unknown)
}

fn token_error(field: &'static str, detail: impl Into<String>) -> DialectError {
    DialectError::new(DialectErrorKind::Token, field, detail)
}

/// A target with as many points as PPG has, `inset` from the edges of the image.
fn sample(ppg: Ppg<'_>, inset: f32) -> GridPrompt {
    let far = ppg.dialect().scale().x as f32 - inset;
    let label = |i| (Point::new(inset, far), i < ppg.positives());
    let group = (0..ppg.positives() + ppg.negatives()).map(label).collect();
    GridPrompt { bbox: BBox::new(inset, inset, far, far), groups: vec![group; ppg.groups()] }
}

/// A conversation to continue: tokens are looked up where they will stand, for many tokenizers cut a text
/// otherwise when it stands alone.
struct Context<'a> {
    tokenizer: &'a Tokenizer,
    dialect: &'a Dialect,
    proposal: String,
    points: String,
}

impl<'a> Context<'a> {
    fn new(tokenizer: &'a Tokenizer, dialect: &'a Dialect) -> Result<Self, DialectError> {
        let bbox = dialect.write_box(BBox::new(1.0, 1.0, 2.0, 2.0));
        let points = dialect.points_query(&bbox, &dialect.write_point(Point::new(1.0, 1.0)));
        Ok(Self { tokenizer, dialect, proposal: dialect.proposal_query(CountHint::One, "it"), points })
    }

    fn encode(&self, field: &'static str, text: &str) -> Result<Vec<u32>, DialectError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| token_error(field, e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokens of `text` after `before`, at least one.
    fn continuation(&self, field: &'static str, text: &str, before: &str) -> Result<Vec<u32>, DialectError> {
        let context = self.encode(field, before)?;
        let mut whole = self.encode(field, &format!("{before}{text}"))?;
        if whole.len() <= context.len() || whole[..context.len()] != context {
            return Err(token_error(field, format!("`{text}` does not begin a token of its own after a query")));
        }
        Ok(whole.split_off(context.len()))
    }

    /// The only token of `text` after `before`.
    fn single(&self, field: &'static str, text: &str, before: &str) -> Result<u32, DialectError> {
        match self.continuation(field, text, before)?[..] {
            [token] => Ok(token),
            ref tokens => Err(token_error(field, format!("`{text}` is {} tokens, not one", tokens.len()))),
        }
    }

    /// The tokens that an answer to `query` can begin with.
    fn opening(&self, query: &str) -> Result<Opening, DialectError> {
        let sample = |v: f32| GridPrompt { bbox: BBox::new(v, v, v + 1.0, v + 1.0), groups: Vec::new() };
        if self.dialect.is_json() {
            return self.opening_of_json(query, &self.dialect.write_answer(&[sample(1.0)], "it"));
        }
        let boxes = [1.0, 3.0].map(|v| self.dialect.write_box(sample(v).bbox));
        let opening = self.opening_of(query, &boxes)?;
        let Some(sign) = self.dialect.count_on() else { return Ok(opening) };
        let counted = format!("{query}{}", boxes[0]);
        let count_on = self.single("count_on", sign, &counted)?;
        if self.continuation("count_on", &boxes[1], &format!("{counted}{sign}"))?[0] != opening.box_start {
            return Err(token_error("count_on", "is followed by another token where a box begins"));
        }
        if count_on == self.single("end_of_answer", self.dialect.end_of_answer(), query)? {
            return Err(token_error("count_on", "is the token that ends an answer"));
        }
        // What a count is worth is read off the tokens before a box's first number.
        if !matches!(opening.frame[..], [Some(_), None, ..]) {
            return Err(token_error("count_on", "needs boxes that begin with one token before their first number"));
        }
        Ok(Opening { count_on: Some(count_on), ..opening })
    }

    /// The same where answers are JSON, of which `sample` is one that names a target: both kinds begin alike, and the first
    /// token that tells them apart decides.
    fn opening_of_json(&self, query: &str, sample: &str) -> Result<Opening, DialectError> {
        let mut absent = self.continuation("absent_answer", self.dialect.absent_answer(), query)?;
        let found = self.continuation("json", sample, query)?;
        let common = absent.iter().zip(&found).take_while(|(a, b)| a == b).count();
        let (Some(&box_start), true) = (found.get(common), common < absent.len()) else {
            return Err(token_error("json", "has no token that tells a target from none"));
        };
        let lead = absent.drain(..common).collect::<Vec<_>>();
        let mut alike = [Vec::new(), Vec::new()];
        for token in 0..self.tokenizer.get_vocab_size(true) as u32 {
            let text = self.tokenizer.decode(&[&lead[..], &[token]].concat(), false).unwrap_or_default();
            match names_target(&text, self.dialect) {
                Some(true) if token != box_start => alike[0].push(token),
                Some(false) if token != absent[0] => alike[1].push(token),
                _ => {}
            }
        }
        Ok(Opening { lead, box_start, absent, alike, count_on: None, frame: Vec::new() })
    }

    /// The same for two targets, as they are written, that have no number in common.
    fn opening_of(&self, query: &str, targets: &[String; 2]) -> Result<Opening, DialectError> {
        let absent = self.continuation("absent_answer", self.dialect.absent_answer(), query)?;
        let [one, other] =
            [self.continuation("box", &targets[0], query)?, self.continuation("box", &targets[1], query)?];
        let box_start = one[0];
        if absent[0] == box_start {
            return Err(token_error("absent_answer", "begins with the token that begins a box"));
        }
        let frame = match one.len() == other.len() {
            true => one.iter().zip(&other).map(|(a, b)| (a == b).then_some(*a)).collect(),
            false => Vec::new(),
        };
        Ok(Opening { lead: Vec::new(), box_start, absent, alike: [Vec::new(), Vec::new()], count_on: None, frame })
    }

    /// The same for PPG; its answers must end as all do, and come back from the tokenizer as they were.
    fn ppg_opening(&self, ppg: Ppg<'_>, end: u32) -> Result<Opening, DialectError> {
        let query = ppg.query(CountHint::One, "it");
        if self.single("end_of_answer", self.dialect.end_of_answer(), &query)? != end {
            return Err(token_error("ppg.query", "is followed by another token where an answer ends"));
        }
        let write = |target: &GridPrompt| {
            ppg.write(std::slice::from_ref(target)).map_err(|e| token_error("ppg.point", e.to_string()))
        };
        let target = sample(ppg, 0.0);
        let text = write(&target)?;
        let tokens = self.continuation("ppg.point", &text, &query)?;
        let back = self.tokenizer.decode(&tokens, false).map_err(|e| token_error("ppg.point", e.to_string()))?;
        match ppg.parse(&back) {
            Ok(Answer::Targets(read)) if read == [target] => {
                self.opening_of(&query, &[text, write(&sample(ppg, 1.0))?])
            }
            _ => Err(token_error("ppg.point", format!("`{text}` comes back from the tokenizer as `{back}`"))),
        }
    }

    fn yes_and_no(&self) -> Result<(u32, u32), DialectError> {
        let first = |field, text: &str| match self.dialect.points_per_question() {
            // The only answer of its question: its first token tells.
            1 => self.continuation(field, text, &self.points).map(|t| t[0]),
            _ => self.single(field, text, &self.points),
        };
        let (yes, no) = (first("yes", self.dialect.yes())?, first("no", self.dialect.no())?);
        if yes == no {
            return Err(token_error("no", "begins with the token that begins `yes`"));
        }
        Ok((yes, no))
    }

    fn prefix_around(&self, image_token: u32) -> Result<(Vec<u32>, Vec<u32>), DialectError> {
        let prefix = self.encode("prefix", self.dialect.prefix())?;
        let places: Vec<_> = (0..prefix.len()).filter(|i| prefix[*i] == image_token).collect();
        match places[..] {
            [at] => Ok((prefix[..at].to_vec(), prefix[at + 1..].to_vec())),
            _ => Err(token_error("prefix", format!("holds {} image tokens, not one", places.len()))),
        }
    }

    /// Whether two of the tokens `numbers` have a space between them; not where there are none.
    fn spaced(&self, numbers: Option<&[u32]>) -> Result<bool, DialectError> {
        let Some(&[number, ..]) = numbers else { return Ok(false) };
        let said = self.tokenizer.decode(&[number, number], false);
        Ok(said.map_err(|e| token_error("coordinates", e.to_string()))?.contains(char::is_whitespace))
    }

    /// The token of every grid value, where each is one token and no two share it.
    fn numbers(&self) -> Option<Vec<u32>> {
        let scale = self.dialect.scale().x;
        if scale > MAX_LISTED_SCALE || self.dialect.is_json() {
            return None;
        }
        let point = |v: u32| {
            let text = self.dialect.write_point(Point::new(v as f32, v as f32));
            self.tokenizer.encode(text, false).ok().map(|e| e.get_ids().to_vec())
        };
        let (zero, one) = (point(0)?, point(1)?);
        // The two places of a point that tell 0 from 1 are its coordinates.
        let places: Vec<_> = (0..zero.len()).filter(|i| one.get(*i) != Some(&zero[*i])).collect();
        let &[x, y] = &places[..] else { return None };
        let mut numbers = Vec::with_capacity(scale as usize + 1);
        for v in 0..=scale {
            let tokens = point(v)?;
            let alike = |i: usize| i == x || i == y || tokens[i] == zero[i];
            if tokens.len() != zero.len() || tokens[x] != tokens[y] || !(0..zero.len()).all(alike) {
                return None;
            }
            numbers.push(tokens[x]);
        }
        let distinct: HashSet<_> = numbers.iter().collect();
        let unique = distinct.len() == numbers.len();
        unique.then_some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bundle;
    use crate::model::toy::{speech, speech_of, token, tokenizer_json, try_speech};
    use crate::prompt::dialect::tests::tabletop_words;
    use crate::prompt::ppg::tests::ppg_words;

    #[test]
    fn a_number_is_begun_where_its_pieces_join() {
        let joined = tokenizer_json().replace("\"decoder\":null", "\"decoder\":{\"type\":\"Fuse\"}");
        for (tokenizer, may) in [(tokenizer_json(), false), (joined, true)] {
            let speech = speech_of(&tokenizer, &tabletop_words()).expect("fits the tokenizer");
            let [opening, one] = ["[", "1"].map(|text| token(&speech, text));
            assert!(speech.may_say(&[opening], 20));
            assert_eq!(speech.may_say(&[opening, one], 20), may);
        }
    }

    #[test]
    fn ppg_has_a_query_of_its_own_and_begins_alike() {
        let taught = speech(|w| w.ppg = Some(ppg_words()));
        let [pqpp, ppg] =
            [Strategy::Pqpp, Strategy::Ppg].map(|s| taught.query(s, CountHint::One, "the red mug").expect("tokenizes"));
        assert_eq!(taught.text(&ppg).expect("is text"), "<user> find points exactly one : the red mug <assistant>");
        assert_ne!(pqpp, ppg);
        assert_eq!(taught.query(Strategy::Box, CountHint::One, "the red mug").expect("tokenizes"), pqpp);
        let [box_first, points_too] = [Strategy::Pqpp, Strategy::Ppg].map(|s| taught.opening(s).expect("is taught"));
        assert_eq!(points_too.box_start(), box_first.box_start());
        assert_eq!(points_too.absent(), box_first.absent());
    }

    #[test]
    fn an_answer_may_stop_where_it_is_whole_and_nowhere_else() {
        let taught = speech(|_| ()).with_stops(&[0]);
        let whole = taught.encode("no such object").expect("tokenizes");
        for end in [taught.end(), 0] {
            assert!(taught.may_say(&[&whole[..], &[end]].concat(), 0), "{end}");
            assert!(!taught.may_say(&[&whole[..1], &[end]].concat(), 9), "{end}");
        }
        assert!(!taught.may_say(&[&whole[..], &[4]].concat(), 9));
    }

    #[test]
    fn what_is_the_same_in_every_answer_is_likely() {
        let speech = speech(|_| ());
        let opening = speech.opening(Strategy::Pqpp).expect("is taught");
        let answer = speech.encode("[100,200,600,700]").expect("tokenizes");
        assert_eq!(answer.len(), 9);
        assert_eq!(opening.likely(&[]), answer[..1]);
        assert!(opening.likely(&answer[..1]).is_empty());
        assert_eq!(opening.likely(&answer[..2]), answer[2..3]);
        // The end of a box, and the beginning of another one, should there be one.
        assert_eq!(opening.likely(&answer[..8]), [answer[8], answer[0]]);
        assert_eq!(opening.likely(&opening.absent()[..1]), opening.absent()[1..]);
    }

    #[test]
    fn without_ppg_it_is_refused_by_name() {
        let plain = speech(|_| ());
        assert_eq!(plain.opening(Strategy::Ppg).expect_err("was not taught").strategy(), Strategy::Ppg);
        let error = plain.query(Strategy::Ppg, CountHint::One, "the red mug").expect_err("was not taught");
        assert!(matches!(error, ModelError::Strategy(_)), "{error}");
    }

    #[test]
    fn a_tokenizer_that_cannot_count_is_refused() {
        assert!(try_speech(|w| w.count_on = Some(",".into())).is_ok());
        for sign in [", ,", "no such", "</s>"] {
            let error = try_speech(|w| w.count_on = Some(sign.into())).err().expect("is two tokens, or the end");
            assert_eq!((error.kind(), error.field()), (DialectErrorKind::Token, "count_on"), "{sign}: {error}");
        }
        let late = |w: &mut bundle::Dialect| (w.count_on, w.bbox) = (Some(",".into()), "[[{x1},{y1},{x2},{y2}]".into());
        let error = try_speech(late).err().expect("two tokens open a box");
        assert_eq!((error.kind(), error.field()), (DialectErrorKind::Token, "count_on"), "{error}");
    }

    #[test]
    fn a_tokenizer_that_cannot_say_ppg_is_refused() {
        let cases: [(bundle::Ppg, &str); 3] = [
            // An unknown word, which comes back as another text.
            (bundle::Ppg { on: "7".into(), ..ppg_words() }, "ppg.point"),
            (bundle::Ppg { point: "<{x},{y},{label}>".into(), ..ppg_words() }, "ppg.point"),
            (bundle::Ppg { off: "zebra".into(), ..ppg_words() }, "ppg.point"),
        ];
        for (ppg, field) in cases {
            let error = try_speech(|w| w.ppg = Some(ppg.clone())).err().expect("cannot be said");
            assert_eq!((error.kind(), error.field()), (DialectErrorKind::Token, field), "{ppg:?}: {error}");
        }
    }
}
