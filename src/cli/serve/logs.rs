//! Logs on stderr and, with the feature `otlp`, spans to an OpenTelemetry collector: of calls, sessions and frames, and at
//! `log_filter = "sam4mllm=debug"` of each stage's work on them. What is logged within a span goes along as its event.

use anyhow::Context;
use tokio::runtime::Runtime;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt, registry};

use crate::server::settings::{LogFormat, Settings};

/// What has to be told before the process ends.
pub(super) struct Logs {
    #[cfg(feature = "otlp")]
    spans: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Logs as `settings` say, from now on; spans are sent from `runtime`.
pub(super) fn init(settings: &Settings, runtime: &Runtime) -> anyhow::Result<Logs> {
    let filter = EnvFilter::try_from_default_env().or_else(|_| EnvFilter::try_new(&settings.log_filter));
    let filter = filter.context("read the log filter")?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let (logs, spans) = spans(settings, runtime)?;
    // Another subscriber stays: that is the caller's choice.
    let _ = registry().with(lines.and_then(spans).with_filter(filter)).try_init();
    // A panic of a stage is one line of the log like everything else.
    std::panic::set_hook(Box::new(|info| tracing::error!(panic = %info, "panicked")));
    Ok(logs)
}

#[cfg(not(feature = "otlp"))]
fn spans(_: &Settings, _: &Runtime) -> anyhow::Result<(Logs, Option<tracing_subscriber::layer::Identity>)> {
    Ok((Logs {}, None))
}

#[cfg(feature = "otlp")]
fn spans<S>(settings: &Settings, runtime: &Runtime) -> anyhow::Result<(Logs, Option<impl Layer<S>>)>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::trace::SdkTracerProvider;

    let Some(endpoint) = &settings.otlp_endpoint else { return Ok((Logs { spans: None }, None)) };
    // The channel's own task has to live somewhere.
    let _entered = runtime.enter();
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter = exporter.with_context(|| format!("send spans to {endpoint}"))?;
    let service = Resource::builder().with_service_name("sam4mllm").build();
    let provider = SdkTracerProvider::builder().with_resource(service).with_batch_exporter(exporter).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("sam4mllm"));
    Ok((Logs { spans: Some(provider) }, Some(layer)))
}

impl Logs {
    /// Sends what has not been sent; a collector that does not answer is waited for a few seconds.
    pub(super) fn finish(self) {
        #[cfg(feature = "otlp")]
        if let Some(Err(error)) = self.spans.map(|spans| spans.shutdown()) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}
