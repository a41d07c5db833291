//! `sam4mllm engine pull`: checkpoints from a hub, and whole bundles by recipe.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressStyle};

use crate::engine::bundle::{Bundle, Verify};
use crate::hub::recipe::{Recipe, write_bundle};
use crate::hub::{Asked, Hub, HubOptions, Pinned, Plan, Progress, Pulled, Selection, TokenFrom, read_pinned};
use crate::import::{Form, Level, Making, Precision, default_cache_dir, import_cached};

/// Arguments of `sam4mllm engine pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A repository, as in organisation/name or organisation/name@revision; a branch, a tag or a commit.
    #[arg(required_unless_present = "recipe", conflicts_with = "recipe", value_parser = read_pinned)]
    repo: Option<Pinned>,
    /// A recipe instead: pulls its two checkpoints and makes a bundle of them. A name that `engine recipe` lists, or a file.
    #[arg(long, value_name = "NAME|FILE", requires = "out")]
    recipe: Option<String>,
    /// Where the files go; with a recipe, the bundle, which must not be there yet. Default: the hub's cache alone.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// Which files, as in *.safetensors; may be given more than once. Default: what an import needs.
    #[arg(long, value_name = "GLOB", conflicts_with = "recipe")]
    include: Vec<String>,
    /// Accept a licence of the recipe, by its name, once you have read it; may be given more than once.
    #[arg(long, value_name = "NAME", requires = "recipe")]
    accept_licence: Vec<String>,
    /// Which operators the graphs of a recipe's bundle are written with.
    #[arg(long, value_enum, default_value_t, requires = "recipe")]
    level: Level,
    /// What they compute in, as for `engine import`.
    #[arg(long, value_enum, default_value_t = Precision::Fp32, requires = "recipe")]
    precision: Precision,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Debug, clap::Args)]
struct HubArgs {
    /// The hub, or a mirror of it. Default: HF_ENDPOINT, else https://huggingface.co.
    #[arg(long)]
    endpoint: Option<String>,
    /// Open no connection, take everything from the cache; HF_HUB_OFFLINE does the same.
    #[arg(long)]
    offline: bool,
    /// A file that holds the token. Default: HF_TOKEN, HF_TOKEN_PATH, the file that the hub's own clients keep.
    #[arg(long, value_name = "FILE", conflicts_with = "no_token")]
    token_file: Option<PathBuf>,
    /// Send no token.
    #[arg(long)]
    no_token: bool,
    /// The cache. Default: HF_HUB_CACHE, else hub in HF_HOME, else ~/.cache/huggingface/hub.
    #[arg(long, value_name = "DIR")]
    hub_cache: Option<PathBuf>,
    /// Files that are fetched at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=16))]
    jobs: u8,
}

impl HubArgs {
    fn open(&self) -> anyhow::Result<Hub> {
        let token = match &self.token_file {
            Some(file) => TokenFrom::File(file.clone()),
            None if self.no_token => TokenFrom::Nowhere,
            None => TokenFrom::Variables,
        };
        let mut options = HubOptions::from_env(Asked { cache: self.hub_cache.clone(), token, offline: self.offline })?;
        options.jobs = self.jobs.into();
        if let Some(endpoint) = &self.endpoint {
            options.endpoint.clone_from(endpoint);
        }
        Ok(Hub::new(options)?)
    }
}

/// Runs the subcommand; gives what goes to stdout: the directory, and with a recipe how to start a node on it.
pub fn run(args: &Args) -> anyhow::Result<String> {
    match &args.recipe {
        Some(recipe) => run_recipe(args, recipe),
        None => run_repo(args),
    }
}

fn run_repo(args: &Args) -> anyhow::Result<String> {
    let (hub, bars) = (args.hub.open()?, Bars::new());
    let pinned = args.repo.as_ref().context("a repository is needed")?;
    let plan = hub.plan(pinned, &Selection::matching(&args.include)?, args.out.as_deref(), &bars)?;
    hub.check_room(&[&plan])?;
    let pulled = carry_out(&hub, &plan, &bars)?;
    Ok(format!("{}\n", pulled.dir.display()))
}

fn run_recipe(args: &Args, recipe: &str) -> anyhow::Result<String> {
    let recipe = Recipe::find(recipe)?;
    recipe.check_licences(&args.accept_licence)?;
    let out = args.out.as_ref().context("--out is needed with a recipe")?;
    let making = Making::new(out)?;
    let (hub, bars) = (args.hub.open()?, Bars::new());
    let [mllm, sam] = recipe.parts();
    let [of_mllm, of_sam] = recipe.selections();
    let mllm = hub.plan(&mllm, &of_mllm, Some(&making.dir().join("mllm")), &bars)?;
    let sam = hub.plan(&sam, &of_sam, Some(&making.dir().join("sam")), &bars)?;
    hub.check_room(&[&mllm, &sam])?;
    let pulled = [carry_out(&hub, &mllm, &bars)?, carry_out(&hub, &sam, &bars)?];
    write_bundle(&recipe, pulled.each_ref(), making.dir())?;
    making.settle()?;
    let bundle = Bundle::open(out, Verify::Sizes)?;
    eprintln!("bundle {} {}; importing it", bundle.manifest().name, bundle.manifest().version);
    import_cached(&bundle, default_cache_dir(), Form { level: args.level, precision: args.precision })
        .with_context(|| format!("import the bundle, which stays in {}", out.display()))?;
    Ok(format!("sam4mllm serve --bundle {}\n", out.display()))
}

fn carry_out(hub: &Hub, plan: &Plan, bars: &Bars) -> anyhow::Result<Pulled> {
    bars.start(plan);
    let pulled = hub.carry_out(plan, bars);
    bars.clear();
    let pulled = pulled?;
    let fetched: Vec<_> = pulled.files.iter().filter(|file| file.fetched).collect();
    eprintln!(
        "{} is commit {}: {} files of {}, {} of {} fetched",
        plan.pinned(),
        pulled.commit,
        pulled.files.len(),
        HumanBytes(plan.size().1),
        fetched.len(),
        HumanBytes(fetched.iter().map(|file| file.bytes).sum())
    );
    Ok(pulled)
}

/// A bar for all files and one for each that is on its way.
struct Bars {
    all: MultiProgress,
    files: Mutex<HashMap<String, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        Self { all: MultiProgress::new(), files: Mutex::default() }
    }

    /// Says what comes.
    fn start(&self, plan: &Plan) {
        let (count, bytes) = plan.size();
        self.say(&format!("{}: {count} files, {}", plan.pinned(), HumanBytes(bytes)));
    }

    fn clear(&self) {
        self.with(|files| files.drain().for_each(|(_, bar)| bar.finish_and_clear()));
        let _ = self.all.clear();
    }

    /// A line above the bars; without a terminal just a line.
    fn say(&self, line: &str) {
        if io::stderr().is_terminal() {
            let _ = self.all.println(line);
        } else {
            eprintln!("{line}");
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<String, ProgressBar>) -> T) -> T {
        act(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Progress for Bars {
    fn begin(&self, file: &str, bytes: u64) {
        let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left  {msg}")
            .expect("the template is valid");
        let bar = self.all.add(ProgressBar::new(bytes)).with_style(style).with_message(file.to_owned());
        self.with(|files| files.insert(file.to_owned(), bar));
    }

    fn reach(&self, file: &str, bytes: u64) {
        self.with(|files| files.get(file).inspect(|bar| bar.set_position(bytes)).map(drop));
    }

    fn wait(&self, file: &str, why: &str) {
        self.say(&format!("{file}: {why}"));
    }

    fn end(&self, file: &str) {
        self.with(|files| files.remove(file).inspect(ProgressBar::finish_and_clear).map(drop));
    }
}
