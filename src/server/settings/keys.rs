//! The keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{BackendName, LogFormat};
use crate::pipeline::Drafting;
use crate::prompt::Strategy;

/// From one list of keys: the settings, their defaults, and the flags and variables that override them.
macro_rules! settings {
    (
        with defaults { $($(#[$about:meta])+ $key:ident: $type:ty = $default:expr, $env:literal;)+ }
        without { $($(#[$about2:meta])+ $key2:ident: $type2:ty, $env2:literal;)+ }
    ) => {
        /// Every setting of a node.
        #[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Settings {
            $($(#[$about])+ pub $key: $type,)+
            $($(#[$about2])+ #[serde(skip_serializing_if = "Option::is_none")] pub $key2: Option<$type2>,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($key: $default,)+ $($key2: None,)+ }
            }
        }

        impl Settings {
            /// Every key with its environment variable.
            pub const KEYS: &[(&str, &str)] =
                &[$((stringify!($key), $env),)+ $((stringify!($key2), $env2),)+];
        }

        /// Settings by flags and environment; the rest is the file's to say.
        #[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize)]
        pub struct Overrides {
            $($(#[$about])+ #[arg(long, env = $env)] #[serde(skip_serializing_if = "Option::is_none")]
            pub $key: Option<$type>,)+
            $($(#[$about2])+ #[arg(long, env = $env2)] #[serde(skip_serializing_if = "Option::is_none")]
            pub $key2: Option<$type2>,)+
        }
    };
}

settings! {
    with defaults {
        /// What runs the models. Default: rten.
        backend: BackendName = BackendName::Rten, "SAM4MLLM_BACKEND";
        /// Bundle folder. Default: engines/tabletop.
        bundle: PathBuf = PathBuf::from("engines/tabletop"), "SAM4MLLM_BUNDLE";
        /// What the language model's answers are guessed from, to be checked in fewer passes; they are the same with
        /// any. Default: sam.
        draft: Drafting = Drafting::Masks, "SAM4MLLM_DRAFT";
        /// Run every engine on a fixed input before the node is ready, and hold the outputs against those that are
        /// stored in the bundle. Default: true.
        self_test: bool = true, "SAM4MLLM_SELF_TEST";
        /// Where to listen for TCP; port 0 takes a free one, empty is no TCP. Default: 127.0.0.1:50051.
        listen: String = "127.0.0.1:50051".to_owned(), "SAM4MLLM_LISTEN";
        /// Take plain text and tell metrics on addresses that others can reach. Default: false.
        allow_plaintext: bool = false, "SAM4MLLM_ALLOW_PLAINTEXT";
        /// The largest message, in MiB: a frame and its depth together. Default: 32. Range: 1..=1024.
        max_message_mib: u32 = 32, "SAM4MLLM_MAX_MESSAGE_MIB";
        /// What a client may send ahead on one stream, in MiB (HTTP/2's window): best a little more than a frame.
        /// Default: 8. Range: 1..=1024.
        window_mib: u32 = 8, "SAM4MLLM_WINDOW_MIB";
        /// The largest frame, in pixels. Default: 33554432. At least 1.
        max_frame_pixels: u64 = 32 << 20, "SAM4MLLM_MAX_FRAME_PIXELS";
        /// The longest side of a frame, in pixels. Default: 16384. At least 1.
        max_frame_side: u32 = 1 << 14, "SAM4MLLM_MAX_FRAME_SIDE";
        /// The longest command, in bytes. Default: 1024. At least 1.
        max_command_bytes: usize = 1024, "SAM4MLLM_MAX_COMMAND_BYTES";
        /// Targets of one session. Default: 16. Range: 1..=256.
        max_targets: usize = 16, "SAM4MLLM_MAX_TARGETS";
        /// Sessions at a time. Default: 64. Range: 1..=4096.
        max_sessions: usize = 64, "SAM4MLLM_MAX_SESSIONS";
        /// Unary calls in work or waiting. Default: 8. Range: 1..=1024.
        max_calls: usize = 8, "SAM4MLLM_MAX_CALLS";
        /// Streams of one client at a time; 0 for no limit. A client is the holder of a token, else of a certificate,
        /// else an IP address or the user of a Unix socket. Default: 0.
        client_streams: usize = 0, "SAM4MLLM_CLIENT_STREAMS";
        /// Frames of one client a second, over all its streams; 0 for no limit. Default: 0.
        client_frames_per_s: f32 = 0.0, "SAM4MLLM_CLIENT_FRAMES_PER_S";
        /// Groundings of one client a minute, over all its streams and calls; 0 for no limit. Default: 0.
        client_groundings_per_min: f32 = 0.0, "SAM4MLLM_CLIENT_GROUNDINGS_PER_MIN";
        /// Memory of the process, in MiB, beyond which no session is taken; 0 for no limit. Default: 0.
        memory_budget_mib: u64 = 0, "SAM4MLLM_MEMORY_BUDGET_MIB";
        /// What one session is reckoned to need at its most, in MiB: a waiting frame, two decoded ones, the window.
        /// Default: 32. At least 1.
        session_memory_mib: u64 = 32, "SAM4MLLM_SESSION_MEMORY_MIB";
        /// Ground a target again after this many milliseconds. Default: 2000.
        reground_after_ms: u64 = 2000, "SAM4MLLM_REGROUND_AFTER_MS";
        /// Remember an instance that went out of sight for this many milliseconds, and give it its id again if it comes
        /// back; what is unsure is looked at more often for so long. Default: 3000.
        remember_lost_ms: u64 = 3000, "SAM4MLLM_REMEMBER_LOST_MS";
        /// Ground a target again where SAM gives a followed mask less than this share of the score that the grounded
        /// mask had; 0 for never. Default: 0.8. Range: 0..=1.
        drift_score_share: f32 = 0.8, "SAM4MLLM_DRIFT_SCORE_SHARE";
        /// Ground a target again where a followed mask is this many times larger or smaller than the grounded one.
        /// Default: 1.6. Range: 1..=1000000.
        drift_area_ratio: f32 = 1.6, "SAM4MLLM_DRIFT_AREA_RATIO";
        /// Ground a target again where the colours under a followed mask are less similar than this to those of the
        /// grounded one (Bhattacharyya coefficient); 0 for never. Default: 0.75. Range: 0..=1.
        drift_colour: f32 = 0.75, "SAM4MLLM_DRIFT_COLOUR";
        /// Ground a target again where a followed mask, moved onto the one a moment before, overlaps it by less than this
        /// (intersection over union); 0 for never. Default: 0.6. Range: 0..=1.
        drift_shape: f32 = 0.6, "SAM4MLLM_DRIFT_SHAPE";
        /// Give one grounding up after this many milliseconds. Default: 30000. At least 1.
        ground_timeout_ms: u64 = 30_000, "SAM4MLLM_GROUND_TIMEOUT_MS";
        /// Wait this many milliseconds for SAM's masks to guess the language model's answers from; 0 for not at all.
        /// Default: 100.
        draft_wait_ms: u64 = 100, "SAM4MLLM_DRAFT_WAIT_MS";
        /// Repeat a mask for this many milliseconds at most while segmentation fails or is started again.
        /// Default: 1000.
        stale_limit_ms: u64 = 1000, "SAM4MLLM_STALE_LIMIT_MS";
        /// How often in a row a stage that panics is started again before it stays down. Default: 8.
        stage_restarts: u32 = 8, "SAM4MLLM_STAGE_RESTARTS";
        /// Call a stage hung that is at one job for more than this many milliseconds: the node is not ready until it is
        /// back. Default: 60000. At least 1.
        stage_hang_ms: u64 = 60_000, "SAM4MLLM_STAGE_HANG_MS";
        /// How many milliseconds the second restart in a row waits; each further one twice as long, up to 30 s.
        /// Default: 1000.
        restart_backoff_ms: u64 = 1000, "SAM4MLLM_RESTART_BACKOFF_MS";
        /// The largest recording, in MiB: one that reaches it stops, and its stream goes on. Default: 4096. At least 1.
        record_max_mib: u64 = 4096, "SAM4MLLM_RECORD_MAX_MIB";
        /// How long a shutdown may take, in seconds: what is in work is finished. Default: 10.
        grace_s: u64 = 10, "SAM4MLLM_GRACE_S";
        /// How logs are written to stderr. Default: text.
        log_format: LogFormat = LogFormat::Text, "SAM4MLLM_LOG_FORMAT";
        /// What is logged, in the syntax of RUST_LOG, which goes before it. Default: info.
        log_filter: String = "info".to_owned(), "SAM4MLLM_LOG_FILTER";
    }
    without {
        /// How the prompt is got from the language model, where a target does not say. Default: as the bundle says.
        strategy: Strategy, "SAM4MLLM_STRATEGY";
        /// A folder to record every stream to, each in an MCAP file of its own, for `sam4mllm replay`. Default: none.
        record: PathBuf, "SAM4MLLM_RECORD";
        /// Threads an engine. Default: one a core. At least 1.
        threads: usize, "SAM4MLLM_THREADS";
        /// Where imported graphs are kept. Default: in the user's cache folder.
        cache_dir: PathBuf, "SAM4MLLM_CACHE";
        /// A Unix socket to listen on, for its user and group alone. Default: none.
        unix_socket: PathBuf, "SAM4MLLM_UNIX_SOCKET";
        /// The node's certificate chain, PEM; with it TCP takes TLS alone. Default: none.
        tls_certificate: PathBuf, "SAM4MLLM_TLS_CERTIFICATE";
        /// Its private key, PEM. Default: none.
        tls_key: PathBuf, "SAM4MLLM_TLS_KEY";
        /// Roots, PEM, that every client's certificate must lead to (mTLS). Default: none, clients need no certificate.
        tls_client_ca: PathBuf, "SAM4MLLM_TLS_CLIENT_CA";
        /// A file of lines `name token`: every call but those for health must bring one of the tokens. Default: none.
        tokens_file: PathBuf, "SAM4MLLM_TOKENS_FILE";
        /// Where metrics are told over HTTP, at /metrics. Default: nowhere.
        metrics_listen: SocketAddr, "SAM4MLLM_METRICS_LISTEN";
        /// An OpenTelemetry collector that spans are sent to over gRPC, in plain text: http://127.0.0.1:4317. Takes a build
        /// with the feature `otlp`. Default: none.
        otlp_endpoint: String, "SAM4MLLM_OTLP_ENDPOINT";
        /// Where browsers find the live page, over HTTP, or over HTTPS where there is TLS. Default: nowhere.
        web_listen: SocketAddr, "SAM4MLLM_WEB_LISTEN";
        /// An origin under which the page may be opened besides the node's own, as behind a proxy:
        /// https://robot.example. Default: none.
        web_origin: String, "SAM4MLLM_WEB_ORIGIN";
    }
}
