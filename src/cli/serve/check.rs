//! `serve --check`: everything that serving takes is tried, one line each; nothing is served.

use anyhow::{Context, bail};
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;

use super::super::stages::StageArgs;
use super::Args;
use super::backends::stage_args;
use crate::engine::bundle::Bundle;
use crate::model::selftest::{Tested, compare};
use crate::model::stages::run_self_test;
use crate::pipeline::Strategies;
use crate::pipeline::fake::FakeGround;
use crate::prompt::Dialect;
use crate::server::settings::{BackendName, Settings};
use crate::server::{Tls, Tokens};

/// What came of each check.
#[derive(Default)]
struct Report {
    rows: Vec<[String; 3]>,
    faults: usize,
}

impl Report {
    /// Notes what `outcome` says, and gives what it holds.
    fn note<T>(&mut self, what: &str, outcome: anyhow::Result<(T, String)>) -> Option<T> {
        match outcome {
            Ok((value, detail)) => {
                self.rows.push([what.to_owned(), "ok".to_owned(), detail]);
                Some(value)
            }
            Err(error) => {
                self.faults += 1;
                self.rows.push([what.to_owned(), "FAULT".to_owned(), format!("{error:#}")]);
                None
            }
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED).set_header(["check", "", "what was found"]);
        self.rows.iter().for_each(|row| {
            table.add_row(row.clone());
        });
        table
    }
}

/// Checks everything, prints a table, and fails where anything is at fault.
pub(super) fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let mut report = Report::default();
    let valid = settings.validate();
    report.note("settings", valid.clone().map_err(Into::into).map(|()| ((), format!("{} keys", Settings::KEYS.len()))));
    check_access(settings, &mut report);
    if valid.is_ok() {
        check_sockets(settings, &mut report);
    }
    match settings.backend {
        BackendName::Fake => {
            let strategies = FakeGround::strategies(settings.strategy.unwrap_or_default());
            report.note(
                "strategy",
                strategies.map(|s| ((), format!("{:?}", s.usual()).to_lowercase())).map_err(Into::into),
            );
        }
        _ => check_bundle(&stage_args(settings, &args.machine), &mut report),
    }
    println!("{}", report.table());
    // Bad settings have an exit code of their own.
    valid?;
    if report.faults > 0 {
        bail!("{} of {} checks found a fault", report.faults, report.rows.len());
    }
    Ok(())
}

fn check_access(settings: &Settings, report: &mut Report) {
    if let Some(files) = settings.tls_files() {
        let loaded = Tls::load(&files).map_err(Into::into);
        let clients = if files.client_ca.is_some() { "clients need a certificate" } else { "clients need none" };
        report.note("TLS", loaded.map(|_| ((), clients.to_owned())));
    }
    if let Some(path) = &settings.tokens_file {
        let loaded = Tokens::load(path).map_err(Into::into);
        report.note("tokens", loaded.map(|tokens| ((), format!("{} in {}", tokens.count(), path.display()))));
    }
}

/// Binds what serving would bind, and lets it go again.
fn check_sockets(settings: &Settings, report: &mut Report) {
    let tcp = settings.tcp_address().ok().flatten();
    for (what, address) in [("listen", tcp), ("metrics", settings.metrics_listen), ("page", settings.web_listen)] {
        let Some(address) = address else { continue };
        let bound = std::net::TcpListener::bind(address).with_context(|| format!("bind {address}"));
        report.note(what, bound.map(|_| ((), address.to_string())));
    }
    let Some(path) = &settings.unix_socket else { return };
    let bound = std::os::unix::net::UnixListener::bind(path).map(|_| std::fs::remove_file(path));
    let detail = path.display().to_string();
    match bound {
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {
            let note = format!("{detail} is there already; serving replaces it where nobody listens");
            report.note("Unix socket", Ok(((), note)));
        }
        bound => {
            report.note("Unix socket", bound.map(|_| ((), detail)).with_context(|| format!("bind {}", path.display())));
        }
    }
}

fn check_bundle(args: &StageArgs, report: &mut Report) {
    let opened = args.open().map(|bundle| {
        let (manifest, files) = (bundle.manifest(), bundle.manifest().files.len());
        let detail = format!("{} {}, {}, {files} files", manifest.name, manifest.version, bundle.fingerprint());
        (bundle, detail)
    });
    let Some(bundle) = report.note("bundle", opened) else { return };
    let usual = Dialect::compile(&bundle.manifest().dialect).map_err(anyhow::Error::from);
    let usual = usual.and_then(|dialect| Ok(Strategies::of(&dialect, args.strategy)?));
    report.note("strategy", usual.map(|s| ((), format!("{:?}", s.usual()).to_lowercase())));
    let loaded = args.engines(&bundle).map(|engines| {
        let detail = format!("{} {}", engines.backend, engines.version);
        (engines.options, detail)
    });
    let Some(options) = report.note("backend", loaded) else { return };
    let tested = run_self_test(&bundle, &options).map_err(anyhow::Error::from);
    if let Some(tested) = report.note("engines", tested.map(|tested| (tested, "all run".to_owned()))) {
        note_engines(tested, &bundle, options.tolerance(), report);
    }
}

/// One row an output: held against its stored one where there is one.
fn note_engines(tested: Vec<Tested>, bundle: &Bundle, tolerance: f32, report: &mut Report) {
    let stored = bundle.manifest().selftest.as_ref();
    for mut one in tested {
        let outcome = compare(std::slice::from_mut(&mut one), stored, tolerance).map_err(anyhow::Error::from);
        let ms = one.took.as_secs_f64() * 1e3;
        let detail = match one.difference {
            Some(difference) => format!("differs by {:.1e} from what is stored, {ms:.0} ms", difference),
            None => format!("finite, nothing is stored to hold it against, {ms:.0} ms"),
        };
        report.note(&format!("{} {}", one.engine, one.tensor), outcome.map(|()| ((), detail)));
    }
}
