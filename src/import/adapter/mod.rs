//! LoRA adapters as `peft` saves them: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! For each tuned layer the file holds two thin matrices, A `[r, in]` and B `[out, r]`; the layer then computes
//! `x · Wᵀ + s · (x · Aᵀ) · Bᵀ`, with `s = alpha / r`, or `alpha / √r` where `use_rslora` is set. Layers that were
//! trained whole (`modules_to_save`, the projector in the paper's recipe) are in it with all their weights.
//!
//! [`AdapterMode::Merge`] adds `s · B · A` to the weights while the graphs are written: a tuned layer costs what it
//! cost before, and the changed matrices are written out as float. [`AdapterMode::Keep`] leaves every byte where it
//! lies and adds the two thin products to the graph. Whole layers are read from the adapter's file in both.
//!
//! Paths in the file follow the module tree of the `transformers` that trained it, which moves from version to
//! version as the checkpoint's names do; [`resolve`] finds one from the other. What the file says and no graph
//! computes is refused: an adapter that is applied in part gives answers that are nearly right.
//!
//! Source: arXiv 2106.09685, section 4.1; arXiv 2312.03732 for `use_rslora`; `peft` 0.21.

mod key;
mod merge;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use crate::engine::bundle::AdapterMode;
pub(crate) use merge::Merge;

use super::checkpoint::{Checkpoint, Located};
use super::error::{ImportError, ImportErrorKind as Kind};
use key::{Key, Part};
use settings::Settings;

/// File with an adapter's settings; a directory that holds it is an adapter.
pub(crate) const SETTINGS: &str = "adapter_config.json";
/// File with an adapter's weights.
const WEIGHTS: &str = "adapter_model.safetensors";

/// An adapter to import a checkpoint with.
#[derive(Debug, Clone, Copy)]
pub struct Adapter<'a> {
    /// The directory that `peft` saved it to.
    pub dir: &'a Path,
    /// What becomes of it.
    pub mode: AdapterMode,
}

/// What an import did with an adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AdapterReport {
    /// What became of it.
    pub mode: AdapterMode,
    /// Matrices that it changes by a low-rank product.
    pub low_rank: usize,
    /// The largest rank among them.
    pub rank: usize,
    /// Tensors that it replaces.
    pub replaced: usize,
}

/// A low-rank change of one matrix, with the names that its halves have in the checkpoint it is attached to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LowRank {
    /// Name of A, `[rank, in]`.
    pub a: String,
    /// Name of B, `[out, rank]`.
    pub b: String,
    /// r.
    pub rank: usize,
    /// s.
    pub scale: f32,
    /// The key of B in the adapter's file, for errors.
    pub key: String,
}

/// Both halves of a pair as the file holds them.
#[derive(Default)]
struct Halves {
    a: Option<(String, Located)>,
    b: Option<(String, Located)>,
}

/// Adds an adapter to a checkpoint: whole tensors take the place of those that they replace, pairs are added under
/// names of their own and listed in [`Checkpoint::low_rank`]. `aliases` are the names that the class's parts have had.
pub(crate) fn attach(
    checkpoint: &mut Checkpoint,
    adapter: &Adapter<'_>,
    aliases: &[&[&str]],
) -> Result<AdapterReport, ImportError> {
    let settings = Settings::read(&adapter.dir.join(SETTINGS))?;
    settings.check_base(&checkpoint.config().class()?)?;
    let file = adapter.dir.join(WEIGHTS);
    let tensors = checkpoint.add_file(&file)?;
    let mut attaching = Attaching { checkpoint, settings, file, aliases, replaced: BTreeSet::new() };
    let mut pairs: BTreeMap<String, Halves> = BTreeMap::new();
    for (name, located) in tensors {
        let Key { path, part } = Key::parse(&name).map_err(|(kind, why)| attaching.error(kind, &name).because(why))?;
        let halves = match part {
            Part::Whole => {
                attaching.replace(&name, &path, located)?;
                continue;
            }
            Part::A | Part::B => pairs.entry(path).or_default(),
        };
        let half = if part == Part::A { &mut halves.a } else { &mut halves.b };
        if let Some((other, _)) = half.replace((name.clone(), located)) {
            return Err(attaching.error(Kind::Corrupt, &name).because(format!("is there twice, also as `{other}`")));
        }
    }
    let low_rank = pairs.len();
    let mut rank = 0;
    for (module, halves) in pairs {
        rank = rank.max(attaching.pair(&module, halves)?);
    }
    let replaced = attaching.replaced.len();
    attaching.check_saved()?;
    if low_rank + replaced == 0 {
        return Err(ImportError::new(Kind::MissingTensor, &attaching.file).because("it holds no tensor"));
    }
    Ok(AdapterReport { mode: adapter.mode, low_rank, rank, replaced })
}

struct Attaching<'a> {
    checkpoint: &'a mut Checkpoint,
    settings: Settings,
    file: PathBuf,
    aliases: &'a [&'a [&'a str]],
    replaced: BTreeSet<String>,
}

impl Attaching<'_> {
    fn error(&self, kind: Kind, name: &str) -> ImportError {
        ImportError::new(kind, &self.file).at(name)
    }

    /// The checkpoint's tensor that a path of the adapter's file means.
    fn target(&self, name: &str, path: &str) -> Result<String, ImportError> {
        resolve(self.checkpoint, self.aliases, path).ok_or_else(|| {
            let why =
                format!("{} has no tensor `{path}`; was the adapter made for it?", self.checkpoint.dir().display());
            self.error(Kind::AdapterTarget, name).because(why)
        })
    }

    fn replace(&mut self, name: &str, path: &str, located: Located) -> Result<(), ImportError> {
        let target = self.target(name, path)?;
        let base = self.checkpoint.get(&target).expect("a target is a tensor of the checkpoint");
        if base.shape != located.shape {
            let why = format!("is {:?}, the checkpoint's `{target}` {:?}", located.shape, base.shape);
            return Err(self.error(Kind::Shape, name).because(why));
        }
        if !self.replaced.insert(target.clone()) {
            return Err(self.error(Kind::Corrupt, name).because(format!("`{target}` is replaced twice")));
        }
        self.checkpoint.replace(target, name, located);
        Ok(())
    }

    /// Adds a pair; gives its rank.
    fn pair(&mut self, module: &str, halves: Halves) -> Result<usize, ImportError> {
        let missing = |half: &str| {
            let key = format!("base_model.model.{module}.lora_{half}.weight");
            self.error(Kind::MissingTensor, &key).because("its other half is there")
        };
        let (a_key, a) = halves.a.ok_or_else(|| missing("A"))?;
        let (b_key, b) = halves.b.ok_or_else(|| missing("B"))?;
        let target = self.target(&a_key, &format!("{module}.weight"))?;
        let (rank, scale) = self.settings.scale(module)?;
        let base = self.checkpoint.get(&target).expect("a target is a tensor of the checkpoint");
        if base.shape.len() == 4 {
            return Err(self.error(Kind::Unsupported, &a_key).because("LoRA of convolutions cannot be imported"));
        }
        let &[output, input] = &base.shape[..] else {
            let why = format!("`{target}` is {:?}, not a matrix", base.shape);
            return Err(self.error(Kind::Shape, &a_key).because(why));
        };
        for (key, found, wanted) in [(&a_key, &a.shape, [rank, input]), (&b_key, &b.shape, [output, rank])] {
            if found[..] != wanted {
                let why = format!("is {found:?}, {wanted:?} follows from {SETTINGS} and the checkpoint's `{target}`");
                return Err(self.error(Kind::Shape, key).because(why));
            }
        }
        let name = |half: &str| format!("{}.lora_{half}.weight", target.trim_end_matches(".weight"));
        let pair = LowRank { a: name("A"), b: name("B"), rank, scale, key: b_key };
        if self.checkpoint.has(&pair.a) || self.checkpoint.has(&pair.b) {
            return Err(self.error(Kind::Corrupt, &a_key).because(format!("`{target}` is changed twice")));
        }
        self.checkpoint.add_pair(target, pair, a, b);
        Ok(rank)
    }

    /// Checks that every module of `modules_to_save` that the checkpoint has is there with all its tensors.
    fn check_saved(&self) -> Result<(), ImportError> {
        for module in self.settings.saved() {
            let component = module.rsplit('.').next().unwrap_or(module);
            let mut wanted: Vec<&str> =
                self.checkpoint.names().filter(|name| name.split('.').any(|part| part == component)).collect();
            wanted.sort_unstable();
            if let Some(missing) = wanted.into_iter().find(|name| !self.replaced.contains(*name)) {
                let why = format!("modules_to_save names {module}");
                return Err(self.error(Kind::MissingTensor, missing).because(why));
            }
        }
        Ok(())
    }
}

/// The tensor of the checkpoint that `path` means: the one of that name, or the one whose name differs from it only in
/// what the part that it belongs to is called.
fn resolve(checkpoint: &Checkpoint, aliases: &[&[&str]], path: &str) -> Option<String> {
    if checkpoint.has(path) {
        return Some(path.to_owned());
    }
    let under = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
    for group in aliases {
        for rest in group.iter().filter_map(|prefix| under(prefix)) {
            let mut names = group.iter().map(|prefix| format!("{prefix}.{rest}"));
            if let Some(name) = names.find(|name| checkpoint.has(name)) {
                return Some(name);
            }
        }
    }
    None
}
