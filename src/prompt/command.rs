//! Checking what the user said before a model sees it.

/// Why a command cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// More characters than the limit.
    #[error("it is longer than {limit} characters")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// A control character, or one that is invisible or changes the direction of text.
    #[error("character U+{code:04X} at {at} is not allowed")]
    Character {
        /// Its code point.
        code: u32,
        /// Its position in characters.
        at: usize,
    },
    /// A control token of the model, which would let the text speak for the assistant or replace the image.
    #[error("it holds the model's control token `{0}`")]
    ControlToken(String),
    /// A word that the model's vocabulary cannot express: it would be asked about something else.
    #[error("the model does not know the word `{0}`")]
    UnknownWord(String),
}

/// Limits on commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandLimits {
    /// Most characters after trimming. Default: 512. At least 1.
    pub max_chars: usize,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self { max_chars: 512 }
    }
}

/// The trimmed command, where it may be asked; `control_tokens` are the tokenizer's added tokens.
///
/// Control tokens are looked for in any case, for a tokenizer may fold it.
///
/// # Errors
/// Every [`CommandError`] but [`CommandError::UnknownWord`], which takes a tokenizer.
pub fn check_command<'a>(
    text: &'a str,
    limits: CommandLimits,
    control_tokens: &[String],
) -> Result<&'a str, CommandError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(CommandError::Empty);
    }
    // Bytes first: counting the characters of an oversized text is itself work for whoever sent it.
    if text.len() > limits.max_chars.saturating_mul(4) || text.chars().count() > limits.max_chars {
        return Err(CommandError::TooLong { limit: limits.max_chars });
    }
    if let Some((at, c)) = text.chars().enumerate().find(|(_, c)| c.is_control() || is_invisible(*c)) {
        return Err(CommandError::Character { code: c.into(), at });
    }
    let folded = text.to_lowercase();
    match control_tokens.iter().find(|t| !t.is_empty() && folded.contains(&t.to_lowercase())) {
        Some(token) => Err(CommandError::ControlToken(token.clone())),
        None => Ok(text),
    }
}

/// Zero-width, direction-changing and tag characters: they make text read otherwise than it looks.
fn is_invisible(c: char) -> bool {
    matches!(u32::from(c), 0xAD | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xE0000..=0xE007F)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens() -> Vec<String> {
        ["<s>", "</s>", "<image>", "<user>"].map(String::from).to_vec()
    }

    #[test]
    fn accepts_and_trims_ordinary_text() {
        assert_eq!(check_command("  the red mug\n", CommandLimits::default(), &tokens()), Ok("the red mug"));
        assert_eq!(check_command("die größte Tasse", CommandLimits::default(), &tokens()), Ok("die größte Tasse"));
        // A lone angle bracket is no token.
        assert!(check_command("size < 5", CommandLimits::default(), &tokens()).is_ok());
    }

    #[test]
    fn refuses_what_cannot_be_asked() {
        let limits = CommandLimits::default();
        let too_long = CommandError::TooLong { limit: 512 };
        let cases: [(String, CommandError); 8] = [
            (String::new(), CommandError::Empty),
            (" \n\t ".into(), CommandError::Empty),
            ("a".repeat(513), too_long.clone()),
            ("é".repeat(100_000), too_long),
            ("a\u{0}b".into(), CommandError::Character { code: 0, at: 1 }),
            ("a\nb".into(), CommandError::Character { code: 10, at: 1 }),
            ("mug\u{202E}".into(), CommandError::Character { code: 0x202E, at: 3 }),
            ("mug <IMAGE> </s>".into(), CommandError::ControlToken("</s>".into())),
        ];
        for (text, error) in cases {
            assert_eq!(check_command(&text, limits, &tokens()), Err(error), "{:.20}", text);
        }
        assert!(check_command(&"é".repeat(512), limits, &tokens()).is_ok());
    }

    proptest! {
        #[test]
        fn whatever_passes_is_bounded_and_clean(text in "\\PC{0,40}|.{0,600}|.*(<s>|</s>|<image>).*") {
            if let Ok(ok) = check_command(&text, CommandLimits { max_chars: 64 }, &tokens()) {
                prop_assert!((1..=64).contains(&ok.chars().count()));
                prop_assert!(!ok.chars().any(char::is_control));
                prop_assert!(tokens().iter().all(|t| !ok.contains(t.as_str())));
            }
        }
    }
}
