//! `adapter_config.json`: ranks and scales, and everything in it that changes what an adapter means.

use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::SETTINGS;
use crate::import::config::Config;
use crate::import::error::{ImportError, ImportErrorKind as Kind};

/// Longest pattern of `rank_pattern` and `alpha_pattern` that is compiled, in bytes.
const MAX_PATTERN: usize = 1 << 10;

/// Keys that must be absent, null, false or empty: each makes of the two matrices something else than LoRA.
const VARIANTS: [(&str, &str); 8] = [
    ("lora_bias", "LoRA with a bias"),
    ("layer_replication", "replicated layers"),
    ("trainable_token_indices", "the training of single tokens"),
    ("target_parameters", "LoRA of bare parameters"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
];

/// Values of `init_lora_weights` that leave the base weights as they are; the others subtract from them what they put
/// into A and B, so that the file alone does not say what the adapted weights are.
const HARMLESS_STARTS: [&str; 4] = ["gaussian", "eva", "orthogonal", "default"];

/// The settings of an adapter.
#[derive(Debug)]
pub(super) struct Settings {
    config: Config,
    rank: usize,
    alpha: f64,
    rslora: bool,
    ranks: Vec<(Pattern, usize)>,
    alphas: Vec<(Pattern, f64)>,
    saved: Vec<String>,
}

/// A key of `rank_pattern` or `alpha_pattern`.
#[derive(Debug)]
struct Pattern {
    key: String,
    regex: Regex,
}

impl Settings {
    /// Reads and checks the file.
    pub(super) fn read(file: &Path) -> Result<Self, ImportError> {
        let config = Config::read(file)?;
        refuse_variants(&config)?;
        let alpha = match config.get("lora_alpha") {
            Some(_) => config.number("lora_alpha", 0.0)?,
            None => return Err(config.wrong("lora_alpha", "is missing")),
        };
        let (rank_pattern, alpha_pattern) = (config.part("rank_pattern")?, config.part("alpha_pattern")?);
        let ranks = patterns(&rank_pattern, Config::required_dim)?;
        let alphas = patterns(&alpha_pattern, |part, key| part.number(key, 0.0))?;
        let saved = match config.get("modules_to_save") {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                let names: Option<Vec<String>> = list.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                names.ok_or_else(|| config.wrong("modules_to_save", "is not a list of names"))?
            }
            Some(_) => return Err(config.wrong("modules_to_save", "is not a list of names")),
        };
        let (rank, rslora) = (config.required_dim("r")?, config.flag("use_rslora", false)?);
        Ok(Self { rank, alpha, rslora, ranks, alphas, saved, config })
    }

    /// Refuses an adapter that says it was made for another class. Many do not say it; their paths will.
    pub(super) fn check_base(&self, class: &str) -> Result<(), ImportError> {
        let mapping = self.config.part("auto_mapping")?;
        match mapping.text("base_model_class", class)? {
            same if same == class => Ok(()),
            other => Err(ImportError::new(Kind::AdapterBase, self.config.file())
                .at("auto_mapping.base_model_class")
                .because(format!("it was made for {other}, the checkpoint is {class}"))),
        }
    }

    /// The rank and the factor of the pair of `module`, a path without `base_model.model.`.
    pub(super) fn scale(&self, module: &str) -> Result<(usize, f32), ImportError> {
        let rank = self.one(&self.ranks, "rank_pattern", module)?.unwrap_or(self.rank);
        let alpha = self.one(&self.alphas, "alpha_pattern", module)?.unwrap_or(self.alpha);
        let divisor = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok((rank, (alpha / divisor) as f32))
    }

    /// What `modules_to_save` names.
    pub(super) fn saved(&self) -> &[String] {
        &self.saved
    }

    /// The value of the pattern that matches; of several only where they agree, since `peft` takes the first in the
    /// file's order and JSON objects have none.
    fn one<T: Copy + PartialEq>(
        &self,
        patterns: &[(Pattern, T)],
        table: &str,
        module: &str,
    ) -> Result<Option<T>, ImportError> {
        let mut matching = patterns.iter().filter(|(pattern, _)| pattern.regex.is_match(module));
        let Some((first, value)) = matching.next() else { return Ok(None) };
        match matching.find(|(_, other)| other != value) {
            None => Ok(Some(*value)),
            Some((second, _)) => {
                let why = format!("`{}` and `{}` match {module} and differ", first.key, second.key);
                Err(self.config.unsupported(table, why))
            }
        }
    }
}

/// The patterns of a table with their values. As in `peft` a pattern must match the end of a module's path, and what is
/// left of the path before it must be empty or end in a dot.
fn patterns<T>(
    part: &Config,
    value: impl Fn(&Config, &str) -> Result<T, ImportError>,
) -> Result<Vec<(Pattern, T)>, ImportError> {
    let one = |key: &str| {
        if key.len() > MAX_PATTERN {
            let start: String = key.chars().take(40).collect();
            return Err(part.wrong(&start, format!("is longer than {MAX_PATTERN} bytes")));
        }
        let regex = Regex::new(&format!(r"^(.*\.)?({key})$"))
            .map_err(|e| part.unsupported(key, format!("cannot be compiled: {e}")))?;
        Ok((Pattern { key: key.to_owned(), regex }, value(part, key)?))
    };
    part.keys().map(one).collect()
}

fn refuse_variants(config: &Config) -> Result<(), ImportError> {
    match config.text("peft_type", "")? {
        "LORA" => {}
        "" => return Err(config.wrong("peft_type", "is missing")),
        other => return Err(config.unsupported("peft_type", format!("`{other}` is not LORA"))),
    }
    if config.flag("use_dora", false)? {
        return Err(config.unsupported("use_dora", "DoRA cannot be imported; merge it with peft first"));
    }
    if config.flag("fan_in_fan_out", false)? {
        return Err(config.unsupported("fan_in_fan_out", "no class that can be imported keeps its weights transposed"));
    }
    match config.text("bias", "none")? {
        "none" => {}
        other => return Err(config.unsupported("bias", format!("`{other}`: trained biases cannot be imported"))),
    }
    match config.get("init_lora_weights") {
        None | Some(Value::Bool(_)) => {}
        Some(Value::String(start)) if HARMLESS_STARTS.contains(&start.as_str()) => {}
        Some(other) => {
            let why = format!("{other} changes the base weights, too; have peft convert it to plain LoRA on saving");
            return Err(config.unsupported("init_lora_weights", why));
        }
    }
    for (key, what) in VARIANTS {
        if config.get(key).is_some_and(is_on) {
            return Err(config.unsupported(key, format!("{what} cannot be imported; merge it with peft first")));
        }
    }
    // Later versions will have more of these.
    let later = |key: &&str| key.starts_with("use_") && *key != "use_rslora" && config.get(key).is_some_and(is_on);
    match config.keys().find(later) {
        None => Ok(()),
        Some(key) => Err(config.unsupported(key, format!("is unknown here; merge it with peft and drop {SETTINGS}"))),
    }
}

fn is_on(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(table) => !table.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str) -> Result<Settings, ImportError> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join(SETTINGS);
        fs::write(&file, text).unwrap();
        Settings::read(&file)
    }

    #[test]
    fn scales_follow_patterns_as_in_peft() {
        let text = r#"{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": RS,
            "rank_pattern": {"layers\\.[01]\\.q_proj": 4, "proj": 2}, "alpha_pattern": {"^model.layers.0.q_proj": 64}}"#;
        let plain = read(&text.replace("RS", "false")).unwrap();
        assert_eq!(plain.scale("model.layers.2.mlp.down_proj").unwrap(), (8, 2.0));
        assert_eq!(plain.scale("model.layers.0.q_proj").unwrap(), (4, 16.0));
        assert_eq!(plain.scale("x.model.layers.0.q_proj").unwrap(), (4, 4.0), "^ is the start of the whole path");
        assert_eq!(plain.scale("model.layers.7.q_proj").unwrap(), (8, 2.0), "a pattern is whole components");
        assert_eq!(plain.scale("a.proj").unwrap(), (2, 8.0));
        let root = read(&text.replace("RS", "true")).unwrap();
        assert_eq!(root.scale("model.layers.0.q_proj").unwrap(), (4, 32.0));
    }

    #[test]
    fn what_is_no_plain_lora_is_refused_by_its_key() {
        let cases = [
            (r#""peft_type": "LORA""#, r#""peft_type": "LOHA""#, Kind::Unsupported, "peft_type"),
            (r#""r": 8"#, r#""r": 0"#, Kind::Config, "r"),
            (r#""r": 8"#, r#""q": 8"#, Kind::Config, "r"),
            (r#""lora_alpha": 16"#, r#""lora_alpha": "nan""#, Kind::Config, "lora_alpha"),
            (r#""lora_alpha": 16"#, r#""lora_alpha": null"#, Kind::Config, "lora_alpha"),
            (r#""use_dora": false"#, r#""use_dora": true"#, Kind::Unsupported, "use_dora"),
            (r#""use_dora": false"#, r#""use_zora": {"n": 2}"#, Kind::Unsupported, "use_zora"),
            (r#""use_dora": false"#, r#""bias": "lora_only""#, Kind::Unsupported, "bias"),
            (r#""use_dora": false"#, r#""fan_in_fan_out": true"#, Kind::Unsupported, "fan_in_fan_out"),
            (r#""use_dora": false"#, r#""init_lora_weights": "pissa""#, Kind::Unsupported, "init_lora_weights"),
            (r#""use_dora": false"#, r#""lora_bias": true"#, Kind::Unsupported, "lora_bias"),
            (r#""use_dora": false"#, r#""rank_pattern": {"(": 2}"#, Kind::Unsupported, "rank_pattern.("),
            (r#""use_dora": false"#, r#""rank_pattern": {"q": 0}"#, Kind::Config, "rank_pattern.q"),
            (r#""use_dora": false"#, r#""alpha_pattern": {"q": []}"#, Kind::Config, "alpha_pattern.q"),
            (r#""use_dora": false"#, r#""modules_to_save": [1]"#, Kind::Config, "modules_to_save"),
        ];
        let good = r#"{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_dora": false}"#;
        read(good).unwrap();
        for (from, to, kind, item) in cases {
            let error = read(&good.replace(from, to)).unwrap_err();
            assert_eq!((error.kind(), error.item()), (kind, Some(item)), "{to}: {error}");
        }
        // As Python writes it.
        let error = read(&good.replace("16", "NaN")).unwrap_err();
        assert_eq!(error.kind(), Kind::Config, "{error}");
        let two = r#""rank_pattern": {"a.b": 2, "b": 4}"#;
        let error = read(&good.replace(r#""use_dora": false"#, two)).unwrap().scale("a.b").unwrap_err();
        assert_eq!(error.item(), Some("rank_pattern"), "{error}");
    }
}
