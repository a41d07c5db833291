//! `sam4mllm engine recipe`: which bundles can be made of published checkpoints.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::json;

use super::Format;
use crate::hub::recipe::{Licence, Memory, Recipe};

/// Arguments of `sam4mllm engine recipe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the file of this one, to make one's own of it. Default: a table of all.
    name: Option<String>,
    /// How to print the table.
    #[arg(long, value_enum, default_value_t = Format::Text, conflicts_with = "name")]
    format: Format,
}

/// Runs the subcommand; gives what goes to stdout.
pub fn run(args: &Args) -> anyhow::Result<String> {
    if let Some(name) = &args.name {
        return Ok(Recipe::text(name)?);
    }
    Ok(match args.format {
        Format::Text => format!("{}\n", table()),
        Format::Json => {
            format!("{:#}\n", Recipe::built_in().map(|recipe| value(&recipe)).collect::<serde_json::Value>())
        }
    })
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["recipe", "checkpoints", "licences", "dialect, strategy", "weights, GiB"]);
    for recipe in Recipe::built_in() {
        let parts = recipe.parts().map(|part| part.to_string()).join("\n");
        let licences = recipe.licences().map(|(_, licence)| shown(licence)).join("\n");
        let asked = format!("{}\n{}", recipe.dialect.word(), recipe.strategy.word());
        let memory = recipe.memory_gib.as_ref().map_or_else(|| "?".to_owned(), memory);
        table.add_row([recipe.name, parts, licences, asked, memory]);
    }
    table
}

fn shown(licence: &Licence) -> String {
    let note = if licence.note.is_empty() { String::new() } else { format!(" ({})", licence.note) };
    let accept = if licence.accept { ", to be accepted" } else { "" };
    format!("{}{note}{accept}", licence.name)
}

fn memory(m: &Memory) -> String {
    format!("fp32 {:.1}, fp16 {:.1}\nint8 {:.1}, int4 {:.1}", m.fp32, m.fp16, m.int8, m.int4)
}

fn value(recipe: &Recipe) -> serde_json::Value {
    let [mllm, sam] = recipe.parts().map(|part| part.to_string());
    json!({
        "name": recipe.name,
        "description": recipe.description,
        "mllm": { "source": mllm, "licence": recipe.mllm.licence, "parameters": recipe.mllm.parameters },
        "sam": { "source": sam, "licence": recipe.sam.licence, "parameters": recipe.sam.parameters },
        "dialect": recipe.dialect.word(),
        "strategy": recipe.strategy,
        "memory_gib": recipe.memory_gib,
    })
}
