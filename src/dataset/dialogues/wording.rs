//! A bundle's dialect with its tokenizer: what may be said, in which words, and how many tokens that is.

use std::path::PathBuf;

use tokenizers::{ModelWrapper, Tokenizer};

use super::tally::Reason;
use super::turn::{TurnFrame, wording};
use super::{DialogueError, Exchange};
use crate::geometry::{BBox, Grid, Point};
use crate::prompt::{CommandError, CommandLimits, Dialect, GridLabel, check_command};

/// What trainers put a picture or something else in the place of.
const PLACEHOLDERS: [&str; 6] = ["<image>", "<video>", "<audio>", "<im_start>", "<im_end>", "<im_patch>"];
/// What may stand between two answers of one question.
const JOINERS: [&str; 5] = ["", " ", ",", ", ", "\n"];

/// The target tokenizer, and what it does not say itself.
#[derive(Debug, Clone)]
pub struct TokenizerSpec {
    /// Its `tokenizer.json`.
    pub file: PathBuf,
    /// The token that stands for the picture in the dialect's prefix. Usual: `<image>`.
    pub image_token: String,
    /// Tokens that the model makes of a picture.
    pub image_tokens: usize,
    /// The user's words in a query, as in `USER: {content} ASSISTANT:`. Default: what stands between control tokens.
    pub turn: Option<String>,
}

/// A dialect that is spoken through a tokenizer.
pub struct Wording {
    dialect: Dialect,
    tokenizer: Tokenizer,
    frame: TurnFrame,
    control: Vec<String>,
    unknown: Option<u32>,
    joiner: &'static str,
    image_tokens: usize,
    limits: CommandLimits,
}

impl Wording {
    /// Fits `dialect` to a tokenizer.
    ///
    /// # Errors
    /// [`DialogueError::Wording`] where answers are JSON, the file is no tokenizer, the prefix does not hold the picture once, the user's
    /// words cannot be told in a query, or the tokenizer has no token for each of several answers.
    pub fn new(dialect: Dialect, spec: &TokenizerSpec) -> Result<Self, DialogueError> {
        if dialect.is_json() {
            return Err(wording("teach a dialect of JSON: it is for stock models, which know it"));
        }
        let mut tokenizer = Tokenizer::from_file(&spec.file)
            .map_err(|e| wording(format!("read tokenizer `{}`: {e}", spec.file.display())))?;
        // Settings for training batches; what is counted here is never padded or cut short.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| wording(e.to_string()))?;
        let mut control: Vec<String> = tokenizer.get_added_tokens_decoder().into_values().map(|t| t.content).collect();
        // Some tokenizers list runs of spaces among their added tokens; those are no control tokens.
        control.retain(|t| !t.trim().is_empty());
        control.sort_unstable();
        let frame = TurnFrame::of(&dialect, spec.turn.as_deref(), &control)?;
        control.extend(PLACEHOLDERS.map(String::from));
        let unknown = unknown(&tokenizer);
        let (image_tokens, limits) = (spec.image_tokens, CommandLimits::default());
        let mut fitted = Self { dialect, tokenizer, frame, control, unknown, joiner: "", image_tokens, limits };
        fitted.check_picture(&spec.image_token)?;
        if fitted.dialect.points_per_question() > 1 {
            fitted.joiner = fitted.find_joiner()?;
        }
        Ok(fitted)
    }

    /// The dialect.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    pub(super) fn frame(&self) -> &TurnFrame {
        &self.frame
    }

    fn check_picture(&self, token: &str) -> Result<(), DialogueError> {
        let id = self.tokenizer.token_to_id(token);
        let id = id.ok_or_else(|| wording(format!("the tokenizer has no token `{token}` for the picture")))?;
        let prefix = self.encode(self.dialect.prefix())?;
        match prefix.iter().filter(|t| **t == id).count() {
            1 => Ok(()),
            n => Err(wording(format!("the dialect's prefix holds `{token}` {n} times, not once"))),
        }
    }

    /// What stands between answers so that the node, which reads one token after the other, is taught what it reads.
    fn find_joiner(&self) -> Result<&'static str, DialogueError> {
        let query = self.points_query(BBox::new(1.0, 1.0, 2.0, 2.0), &[(Point::new(1.0, 1.0), true); 2]);
        let before = self.encode(&query)?;
        let (yes, no) = (self.dialect.yes(), self.dialect.no());
        let single = |answer: &str| -> Result<Option<u32>, DialogueError> {
            let tokens = self.encode(&format!("{query}{answer}"))?;
            Ok(tokens.strip_prefix(&before[..]).and_then(|rest| <[u32; 1]>::try_from(rest).ok()).map(|[t]| t))
        };
        let tokens = (single(yes)?, single(no)?);
        for joiner in JOINERS {
            let (Some(y), Some(n)) = tokens else { break };
            let said = self.encode(&format!("{query}{}", [yes, yes, no, no, yes].join(joiner)))?;
            if said.strip_prefix(&before[..]) == Some(&[y, y, n, n, y]) {
                return Ok(joiner);
            }
        }
        Err(wording(format!(
            "the tokenizer does not make one token of each `{yes}` and `{no}` in a row: set points_per_question to 1"
        )))
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, DialogueError> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| wording(format!("tokenize: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// An expression as it may be asked, trimmed.
    ///
    /// # Errors
    /// Why it is not taught.
    pub(super) fn check_expression<'a>(&self, text: &'a str) -> Result<&'a str, Reason> {
        let text = check_command(text, self.limits, &self.control).map_err(|e| match e {
            CommandError::ControlToken(_) => Reason::ControlToken,
            _ => Reason::Text,
        })?;
        self.check_words(text).map(|()| text)
    }

    /// Whether a turn of a conversation may be taught as it is.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn check_turn(&self, text: &str) -> Result<(), Reason> {
        let folded = text.to_lowercase();
        if self.control.iter().any(|t| folded.contains(&t.to_lowercase())) {
            return Err(Reason::ControlToken);
        }
        self.check_words(text)
    }

    fn check_words(&self, text: &str) -> Result<(), Reason> {
        let tokens = self.encode(text).map_err(|_| Reason::UnknownWord)?;
        if tokens.iter().any(|t| Some(*t) == self.unknown) { Err(Reason::UnknownWord) } else { Ok(()) }
    }

    /// The query for points of a box, frame and all.
    pub(super) fn points_query(&self, bbox: BBox<Grid>, points: &[GridLabel]) -> String {
        let points: String = points.iter().map(|(p, _)| self.dialect.write_point(*p)).collect();
        self.dialect.points_query(&self.dialect.write_box(bbox), &points)
    }

    /// The answer to it.
    pub(super) fn points_answer(&self, points: &[GridLabel]) -> String {
        let words: Vec<&str> =
            points.iter().map(|(_, on)| if *on { self.dialect.yes() } else { self.dialect.no() }).collect();
        words.join(self.joiner)
    }

    /// A query and its answer as a chat format holds them.
    pub(super) fn exchange(&self, query: &str, assistant: String) -> Exchange {
        let user = self.frame.content(query).expect("every query has the frame, which was checked");
        Exchange { user: user.to_owned(), assistant }
    }

    /// The whole conversation as the model is given it.
    pub(super) fn text<'a>(&self, exchanges: impl IntoIterator<Item = &'a Exchange>) -> String {
        exchanges
            .into_iter()
            .fold(self.dialect.prefix().to_owned(), |text, e| text + &self.question(e) + &self.answer(e))
    }

    fn question(&self, exchange: &Exchange) -> String {
        [&self.frame.before, &exchange.user, &self.frame.after].map(String::as_str).concat()
    }

    fn answer(&self, exchange: &Exchange) -> String {
        [&exchange.assistant, self.dialect.end_of_answer()].concat()
    }

    /// Tokens of a conversation, those of the picture among them.
    ///
    /// # Errors
    /// [`DialogueError::Wording`].
    pub(super) fn count<'a>(&self, exchanges: impl IntoIterator<Item = &'a Exchange>) -> Result<usize, DialogueError> {
        Ok(self.encode(&self.text(exchanges))?.len() - 1 + self.image_tokens)
    }

    /// Tokens that an exchange adds to a conversation, and those of them that the loss counts.
    ///
    /// # Errors
    /// [`DialogueError::Wording`].
    pub(super) fn cost(&self, exchange: &Exchange) -> Result<(usize, usize), DialogueError> {
        let question = self.question(exchange);
        let asked = self.encode(&question)?.len();
        let all = self.encode(&(question + &self.answer(exchange)))?.len();
        Ok((all, all.saturating_sub(asked)))
    }
}

/// The token for words that the tokenizer does not know.
fn unknown(tokenizer: &Tokenizer) -> Option<u32> {
    let unknown = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.as_deref(),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.as_str()),
        ModelWrapper::WordLevel(model) => Some(model.unk_token.as_str()),
        ModelWrapper::Unigram(_) => None,
    };
    unknown.and_then(|t| tokenizer.token_to_id(t))
}
