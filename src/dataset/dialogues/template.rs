//! The dialect as a Jinja chat template: with it a trainer makes the very text that the node makes.

use super::Wording;

/// A `chat_template.jinja` that renders `messages` in the words of the dialect; `{% generation %}` marks what the loss
/// counts. The picture stands in the prefix, where the node has it, whatever message holds it.
pub(super) fn chat_template(wording: &Wording) -> String {
    let [prefix, before, after, end] = [
        wording.dialect().prefix(),
        &wording.frame().before,
        &wording.frame().after,
        wording.dialect().end_of_answer(),
    ]
    .map(quoted);
    let content = "\
        {%- if message['content'] is string -%}\n\
        {{- message['content'] -}}\n\
        {%- else -%}\n\
        {%- for part in message['content'] if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}\n\
        {%- endif -%}\n";
    format!(
        "{{{{- {prefix} -}}}}\n\
         {{%- for message in messages -%}}\n\
         {{%- if message['role'] == 'user' -%}}\n\
         {{{{- {before} -}}}}\n\
         {content}\
         {{{{- {after} -}}}}\n\
         {{%- else -%}}\n\
         {{%- generation -%}}\n\
         {content}\
         {{{{- {end} -}}}}\n\
         {{%- endgeneration -%}}\n\
         {{%- endif -%}}\n\
         {{%- endfor -%}}\n"
    )
}

/// A Jinja string.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\r', "\\r");
    format!("'{escaped}'")
}
