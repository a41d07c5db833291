//! Conversations as the trainers' files have them.
//!
//! Sources: TRL, "Dataset formats", vision; LLaMA-Factory, `data/README.md`, sharegpt in OpenAI's roles; LLaVA,
//! `docs/Finetune_Custom_Data.md`.

use serde::Serialize;

use super::Exchange;

/// Where LLaVA and LLaMA-Factory put the picture.
const PLACEHOLDER: &str = "<image>";
/// LLaMA-Factory's register of data sets, for a folder that holds this one.
const DATASET_INFO: &str = r#"{
  "sam4mllm": {
    "file_name": "dialogues.jsonl",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
      "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"
    }
  }
}
"#;

/// A trainer's format. None has a mark for each message: all three train on what the assistant says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ChatFormat {
    /// TRL: `messages` whose content is a list of parts, and `images`.
    Trl,
    /// LLaMA-Factory: `messages` with `<image>`, and `images`.
    LlamaFactory,
    /// LLaVA: one JSON list of `conversations` with `<image>`, and `image`.
    Llava,
}

/// A conversation to be written.
pub(super) struct Conversation<'a> {
    pub id: String,
    pub image: &'a str,
    pub exchanges: &'a [Exchange],
}

#[derive(Serialize)]
struct Messages<'a, C> {
    id: &'a str,
    messages: Vec<Message<C>>,
    images: [&'a str; 1],
}

#[derive(Serialize)]
struct Message<C> {
    role: &'static str,
    content: C,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Part<'a> {
    Image,
    Text { text: &'a str },
}

#[derive(Serialize)]
struct Llava<'a> {
    id: &'a str,
    image: &'a str,
    conversations: Vec<Turn>,
}

#[derive(Serialize)]
struct Turn {
    from: &'static str,
    value: String,
}

impl ChatFormat {
    /// The file that holds the conversations, one a line.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Trl | Self::LlamaFactory => "dialogues.jsonl",
            Self::Llava => "dialogues.json",
        }
    }

    /// What stands before the first line, between lines and after the last.
    pub(super) fn around(self) -> [&'static str; 3] {
        match self {
            Self::Trl | Self::LlamaFactory => ["", "\n", "\n"],
            Self::Llava => ["[\n", ",\n", "\n]\n"],
        }
    }

    /// A further file that the trainer wants, with its name.
    pub(super) fn register(self) -> Option<(&'static str, &'static str)> {
        (self == Self::LlamaFactory).then_some(("dataset_info.json", DATASET_INFO))
    }

    /// One line, without its end.
    pub(super) fn line(self, c: &Conversation<'_>) -> String {
        let (id, images) = (c.id.as_str(), [c.image]);
        let line = match self {
            Self::Trl => serde_json::to_string(&Messages { id, messages: parts(c.exchanges), images }),
            Self::LlamaFactory => serde_json::to_string(&Messages { id, messages: texts(c.exchanges), images }),
            Self::Llava => serde_json::to_string(&Llava { id, image: c.image, conversations: turns(c.exchanges) }),
        };
        line.expect("plain data serialises")
    }
}

/// Every content is a list, for a column of a table has one type.
fn parts(exchanges: &[Exchange]) -> Vec<Message<Vec<Part<'_>>>> {
    let mut messages = Vec::with_capacity(2 * exchanges.len());
    for (i, e) in exchanges.iter().enumerate() {
        let picture = (i == 0).then_some(Part::Image);
        let content = picture.into_iter().chain([Part::Text { text: &e.user }]).collect();
        messages.push(Message { role: "user", content });
        messages.push(Message { role: "assistant", content: vec![Part::Text { text: &e.assistant }] });
    }
    messages
}

fn texts(exchanges: &[Exchange]) -> Vec<Message<String>> {
    let pair = |(i, e): (usize, &Exchange)| {
        let user = if i == 0 { format!("{PLACEHOLDER}{}", e.user) } else { e.user.clone() };
        [Message { role: "user", content: user }, Message { role: "assistant", content: e.assistant.clone() }]
    };
    exchanges.iter().enumerate().flat_map(pair).collect()
}

fn turns(exchanges: &[Exchange]) -> Vec<Turn> {
    let pair = |(i, e): (usize, &Exchange)| {
        let value = if i == 0 { format!("{PLACEHOLDER}\n{}", e.user) } else { e.user.clone() };
        [Turn { from: "human", value }, Turn { from: "gpt", value: e.assistant.clone() }]
    };
    exchanges.iter().enumerate().flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_the_trainers_take_them() {
        let exchange =
            |user: &str, assistant: &str| Exchange { user: user.to_owned(), assistant: assistant.to_owned() };
        let exchanges =
            [exchange("find one: the \"red\" mug", "[001,002,003,004]"), exchange("on it?\n[001,002]", "yes")];
        let line = |format: ChatFormat| {
            format.line(&Conversation { id: "tabletop-0".into(), image: "images/a.jpg", exchanges: &exchanges })
        };
        assert_eq!(
            line(ChatFormat::Trl),
            r#"{"id":"tabletop-0","messages":[{"role":"user","content":[{"type":"image"},{"type":"text","text":"find one: the \"red\" mug"}]},{"role":"assistant","content":[{"type":"text","text":"[001,002,003,004]"}]},{"role":"user","content":[{"type":"text","text":"on it?\n[001,002]"}]},{"role":"assistant","content":[{"type":"text","text":"yes"}]}],"images":["images/a.jpg"]}"#
        );
        assert_eq!(
            line(ChatFormat::LlamaFactory),
            r#"{"id":"tabletop-0","messages":[{"role":"user","content":"<image>find one: the \"red\" mug"},{"role":"assistant","content":"[001,002,003,004]"},{"role":"user","content":"on it?\n[001,002]"},{"role":"assistant","content":"yes"}],"images":["images/a.jpg"]}"#
        );
        assert_eq!(
            line(ChatFormat::Llava),
            r#"{"id":"tabletop-0","image":"images/a.jpg","conversations":[{"from":"human","value":"<image>\nfind one: the \"red\" mug"},{"from":"gpt","value":"[001,002,003,004]"},{"from":"human","value":"on it?\n[001,002]"},{"from":"gpt","value":"yes"}]}"#
        );
        serde_json::from_str::<serde_json::Value>(DATASET_INFO).expect("JSON");
    }
}
