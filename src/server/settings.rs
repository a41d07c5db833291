//! A node's settings: every key with what it means, its default and its range, said once.
//!
//! A key has one name in three spellings: `max_targets` in the file, `SAM4MLLM_MAX_TARGETS` in the environment,
//! `--max-targets` as a flag. A flag goes before the environment, that before the file, and the file before the default.
//! What is unknown or out of range is refused, never ignored or bent.

mod keys;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

pub use keys::{Overrides, Settings};

use super::{Limits, RecordConfig, ServerConfig, TlsFiles};
use crate::frame::FrameLimits;
use crate::node::{ConfigError, NodeConfig, Quota};
use crate::pipeline::{DriftLimits, TrackLimits};

/// The longest file that is read, in bytes; one with every key commented has a tenth of it.
const MAX_FILE_BYTES: u64 = 1 << 17;

/// What runs the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendName {
    /// The bundle's models on the CPU.
    Rten,
    /// The bundle's models on an NVIDIA GPU.
    #[cfg(feature = "tensorrt")]
    #[value(name = "tensorrt")]
    #[serde(rename = "tensorrt")]
    TensorRt,
    /// No models: commands are colour words.
    Fake,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings file cannot be used; says which, and where in it.
#[derive(Debug, thiserror::Error)]
#[error("read settings `{path}`")]
pub struct SettingsError {
    path: PathBuf,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Settings {
    /// The defaults, under what `file` says, under `overrides`.
    ///
    /// # Errors
    /// A file that cannot be read, is not TOML, has a key that is none or a value of another type.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, SettingsError> {
        let path = file.unwrap_or(Path::new("")).to_owned();
        let bad = |source| SettingsError { path: path.clone(), source };
        let mut table = toml::Table::new();
        if let Some(file) = file {
            let bytes = std::fs::metadata(file).map_err(|e| bad(Box::new(e)))?.len();
            if bytes > MAX_FILE_BYTES {
                return Err(bad(format!("{bytes} bytes are more than {MAX_FILE_BYTES}").into()));
            }
            let text = std::fs::read_to_string(file).map_err(|e| bad(Box::new(e)))?;
            // As settings first: only the text knows at which line something is wrong.
            toml::from_str::<Self>(&text).map_err(|e| bad(Box::new(e)))?;
            table = text.parse().map_err(|e: toml::de::Error| bad(Box::new(e)))?;
        }
        table.extend(toml::Table::try_from(overrides).map_err(|e| bad(Box::new(e)))?);
        table.try_into().map_err(|e: toml::de::Error| bad(Box::new(e)))
    }

    /// Refuses what is out of range, and settings that contradict each other.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |setting, what| Err(ConfigError::new(setting, what));
        if self.listen.is_empty() && self.unix_socket.is_none() {
            return refuse("listen", "must be an address, or `unix_socket` be set");
        }
        let listen = self.tcp_address()?;
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => return refuse("tls_key", "must be set, for `tls_certificate` is"),
            (None, Some(_)) => return refuse("tls_certificate", "must be set, for `tls_key` is"),
            (None, None) if self.tls_client_ca.is_some() => {
                return refuse("tls_client_ca", "takes TLS: set `tls_certificate` and `tls_key`");
            }
            _ => {}
        }
        let open = |address: std::net::SocketAddr| !address.ip().to_canonical().is_loopback() && !self.allow_plaintext;
        if listen.is_some_and(open) && self.tls_certificate.is_none() {
            let what = "is not this machine alone, and plain text can be read and changed on the way: set \
                        `tls_certificate` and `tls_key`, or `allow_plaintext = true`";
            return refuse("listen", what);
        }
        if self.metrics_listen.is_some_and(open) {
            let what = "is not this machine alone, and metrics are plain text: set `allow_plaintext = true`, or listen \
                        on 127.0.0.1";
            return refuse("metrics_listen", what);
        }
        if self.web_listen.is_some_and(open) && self.tls_certificate.is_none() {
            let what = "is not this machine alone, and plain text can be read and changed on the way: set \
                        `tls_certificate` and `tls_key`, or `allow_plaintext = true`";
            return refuse("web_listen", what);
        }
        if EnvFilter::try_new(&self.log_filter).is_err() {
            let what = "must be a level such as info, or targets with levels such as warn,sam4mllm::node=debug";
            return refuse("log_filter", what);
        }
        self.validate_collector()?;
        self.validate_numbers()?;
        self.server().validate()
    }

    /// Spans go to where the collector of this machine usually is; there is no TLS on that way.
    fn validate_collector(&self) -> Result<(), ConfigError> {
        let Some(endpoint) = &self.otlp_endpoint else { return Ok(()) };
        let refuse = |what| Err(ConfigError::new("otlp_endpoint", what));
        if cfg!(not(feature = "otlp")) {
            return refuse("takes a build with the feature: cargo build --release --features otlp");
        }
        let host = endpoint.parse::<hyper::Uri>().ok().filter(|uri| uri.scheme_str() == Some("http"));
        if host.is_none_or(|uri| uri.host().is_none()) {
            return refuse("must be http://HOST:PORT, as of a collector on this machine");
        }
        Ok(())
    }

    /// The numbers that have another unit here than in [`ServerConfig`], which checks the rest.
    fn validate_numbers(&self) -> Result<(), ConfigError> {
        let checks = [
            ("threads", self.threads != Some(0), "must not be 0; leave it out for one a core"),
            ("max_message_mib", (1..=1024).contains(&self.max_message_mib), "must be in 1..=1024"),
            ("window_mib", (1..=1024).contains(&self.window_mib), "must be in 1..=1024"),
            ("record_max_mib", self.record_max_mib > 0, "must not be 0"),
            ("stage_hang_ms", self.stage_hang_ms > 0, "must not be 0"),
            ("ground_timeout_ms", self.ground_timeout_ms > 0, "must not be 0"),
        ];
        match checks.into_iter().find(|(_, ok, _)| !ok) {
            Some((setting, _, what)) => Err(ConfigError::new(setting, what)),
            None => Ok(()),
        }
    }

    /// Where to listen for TCP; `None` where not at all.
    ///
    /// # Errors
    /// Where `listen` is no address.
    pub fn tcp_address(&self) -> Result<Option<std::net::SocketAddr>, ConfigError> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let what = "must be an IP address with a port, such as 127.0.0.1:50051, or empty for no TCP";
        self.listen.parse().map(Some).map_err(|_| ConfigError::new("listen", what))
    }

    /// The files of TLS; `None` for plain text.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.tls_certificate.clone()?, self.tls_key.clone()?);
        Some(TlsFiles { certificate, key, client_ca: self.tls_client_ca.clone() })
    }

    /// As the server takes it.
    pub fn server(&self) -> ServerConfig {
        let mib = |mib: u32| (mib as usize).saturating_mul(1 << 20);
        ServerConfig {
            node: self.node(),
            limits: Limits {
                client_streams: self.client_streams,
                quota: Quota {
                    frames_per_s: self.client_frames_per_s,
                    groundings_per_min: self.client_groundings_per_min,
                },
                memory_mib: self.memory_budget_mib,
                session_mib: self.session_memory_mib,
            },
            max_message_bytes: mib(self.max_message_mib),
            window_bytes: self.window_mib.saturating_mul(1 << 20),
            web_origin: self.web_origin.clone(),
            grace: Duration::from_secs(self.grace_s),
            record: self.record.clone().map(|folder| RecordConfig {
                folder,
                max_bytes: self.record_max_mib.saturating_mul(1 << 20),
                draft: self.draft,
            }),
            ..ServerConfig::default()
        }
    }

    fn node(&self) -> NodeConfig {
        let drift = DriftLimits {
            score_share: self.drift_score_share,
            area_ratio: self.drift_area_ratio,
            colour: self.drift_colour,
            shape: self.drift_shape,
        };
        NodeConfig {
            frame: FrameLimits { max_pixels: self.max_frame_pixels, max_side: self.max_frame_side },
            track: TrackLimits { drift, ..TrackLimits::default() },
            reground_after: Duration::from_millis(self.reground_after_ms),
            remember_lost: Duration::from_millis(self.remember_lost_ms),
            ground_timeout: Duration::from_millis(self.ground_timeout_ms),
            draft_wait: Duration::from_millis(self.draft_wait_ms),
            stale_limit: Duration::from_millis(self.stale_limit_ms),
            max_sessions: self.max_sessions,
            max_targets: self.max_targets,
            max_calls: self.max_calls,
            max_command_bytes: self.max_command_bytes,
            stage_restarts: self.stage_restarts,
            stage_hang: Duration::from_millis(self.stage_hang_ms),
            restart_backoff: Duration::from_millis(self.restart_backoff_ms),
            ..NodeConfig::default()
        }
    }
}

#[cfg(test)]
mod tests;
