//! `sam4mllm serve`: the node on its sockets.

mod backends;
mod check;
mod logs;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;

pub(super) use backends::{Machine, model_backend};

use super::signals::Signals;
use crate::server::settings::{Overrides, Settings};
use crate::server::{Backend, Server, Sockets, Tls, Tokens, UnixSocket};

/// Arguments of `sam4mllm serve`. Each flag but the first few is also a key of the settings file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A settings file; `launch/sam4mllm.toml` has every key.
    #[arg(short, long, env = "SAM4MLLM_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Try everything that serving takes (settings, sockets, certificates, tokens, bundle, engines against their stored
    /// outputs), print what came of it, and serve nothing.
    #[arg(long)]
    check: bool,
    /// Write the address that was bound to this file.
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// The fake grounder takes this long.
    #[arg(long, hide = true, default_value_t = 0)]
    fake_ground_ms: u64,
    #[command(flatten)]
    machine: Machine,
    #[command(flatten)]
    settings: Overrides,
}

/// What answers under these settings.
pub(super) fn backend(settings: &Settings, machine: &Machine) -> anyhow::Result<Backend> {
    backends::backend(settings, machine, Duration::ZERO)
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    // Before a socket or a thread exists.
    let settings = Settings::load(args.config.as_deref(), &args.settings)?;
    if args.check {
        return check::run(&settings, &args);
    }
    settings.validate()?;
    crate::engine::keep_freed();
    // The stages have threads of their own; these only move bytes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let logs = logs::init(&settings, &runtime)?;
    let backend = backends::backend(&settings, &args.machine, Duration::from_millis(args.fake_ground_ms))?;
    let outcome = runtime.block_on(serve(&args, &settings, backend));
    // What is still to be told takes the runtime.
    logs.finish();
    // A stage in the middle of a long pass is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Binds everything; in the order in which it is most likely to fail.
async fn sockets(settings: &Settings) -> anyhow::Result<Sockets> {
    let tls = settings.tls_files().map(|files| Tls::load(&files)).transpose()?;
    let tokens = settings.tokens_file.as_deref().map(Tokens::load).transpose()?;
    let tcp = match settings.tcp_address()? {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let unix = settings
        .unix_socket
        .as_deref()
        .map(|path| UnixSocket::bind(path).with_context(|| format!("bind Unix socket {}", path.display())));
    let metrics = match settings.metrics_listen {
        Some(address) => Some(bind(address).await.context("listen for metrics")?),
        None => None,
    };
    let web = match settings.web_listen {
        Some(address) => Some(bind(address).await.context("listen for browsers")?),
        None => None,
    };
    Ok(Sockets { tcp, tls, unix: unix.transpose()?, tokens, metrics, web })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("bind {address}"))
}

async fn serve(args: &Args, settings: &Settings, backend: Backend) -> anyhow::Result<()> {
    let sockets = sockets(settings).await?;
    // Before anyone can know of the node, so that no signal is missed.
    let signals = Signals::listen()?;
    say_where(settings, &sockets);
    let server = Server::build(settings.server(), sockets, backend).await?;
    if let Some(file) = &args.address_file {
        write_address(file, server.address()?).with_context(|| format!("write {}", file.display()))?;
    }
    let shutdown = async {
        // Not within the macro, which does not wait where nothing is logged.
        let signal = signals.came().await;
        tracing::info!("got {signal}");
    };
    server.run(shutdown).await?;
    tracing::info!("bye");
    Ok(())
}

fn say_where(settings: &Settings, sockets: &Sockets) {
    let backend = settings.backend;
    if let Some(Ok(address)) = sockets.tcp.as_ref().map(TcpListener::local_addr) {
        let (tls, mtls) = (sockets.tls.is_some(), settings.tls_client_ca.is_some());
        tracing::info!(%address, ?backend, tls, mtls, tokens = sockets.tokens.is_some(), "listening");
        if !tls && !address.ip().to_canonical().is_loopback() {
            tracing::warn!(%address, "takes plain text from other machines: frames, answers and tokens can be read");
        }
    }
    if let Some(path) = &settings.unix_socket {
        tracing::info!(path = %path.display(), ?backend, tokens = sockets.tokens.is_some(), "listening");
    }
    if let Some(Ok(address)) = sockets.metrics.as_ref().map(TcpListener::local_addr) {
        tracing::info!(%address, "telling metrics");
    }
    if let Some(Ok(address)) = sockets.web.as_ref().map(TcpListener::local_addr) {
        let scheme = if sockets.tls.is_some() { "https" } else { "http" };
        tracing::info!("page for browsers at {scheme}://{address}/");
    }
}

/// Whole or not at all: whoever waits for the file never reads half an address.
fn write_address(file: &Path, address: SocketAddr) -> std::io::Result<()> {
    let draft = file.with_extension("part");
    std::fs::write(&draft, format!("{address}\n"))?;
    std::fs::rename(draft, file)
}
