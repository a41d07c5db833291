//! `sam4mllm ros2`: a bridge between ROS 2 topics and a node, without ROS.

use tracing_subscriber::EnvFilter;

use super::access::AccessArgs;
use super::signals::Signals;
use crate::ros2::convert::MaskValues;
use crate::ros2::{Bridge, Settings, Topics};

/// What is logged where `RUST_LOG` does not say: DDS tells each step of its discovery, and errors for an end like any.
const LOGS: &str = "info,rustdds=warn,ros2_client=off";

/// Arguments of `sam4mllm ros2`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sam4mllm node.
    #[arg(long, env = "SAM4MLLM_NODE", default_value = "127.0.0.1:50051", value_name = "HOST:PORT")]
    node: String,
    #[command(flatten)]
    access: AccessArgs,
    /// The ROS domain.
    #[arg(long, env = "ROS_DOMAIN_ID", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=232))]
    domain: u16,
    /// Namespace of the ROS node.
    #[arg(long, default_value = "/")]
    namespace: String,
    /// Name of the ROS node.
    #[arg(long, default_value = "sam4mllm_bridge")]
    name: String,
    /// Topic of the camera.
    #[arg(long, default_value = "image")]
    image: String,
    /// Read sensor_msgs/CompressedImage from `IMAGE/compressed`.
    #[arg(long)]
    compressed: bool,
    /// Topic of the camera's intrinsics; by default `camera_info` beside the image.
    #[arg(long)]
    camera_info: Option<String>,
    /// Topic of depth that is registered to the image: with it and intrinsics, detections have positions.
    #[arg(long)]
    depth: Option<String>,
    /// Topic of the commands.
    #[arg(long, default_value = "~/command")]
    command: String,
    /// Topic of the detections.
    #[arg(long, default_value = "~/detections")]
    detections: String,
    /// Topic of the mask.
    #[arg(long, default_value = "~/mask")]
    mask: String,
    /// Topic of the verdicts.
    #[arg(long, default_value = "~/verdicts")]
    verdicts: String,
    /// Number the instances in the mask, 1 for the first detection, instead of 255 for all.
    #[arg(long)]
    labels: bool,
    /// What to look for until a command comes.
    #[arg(long, default_value = "", hide_default_value = true)]
    look_for: String,
}

/// Runs the subcommand until SIGTERM or SIGINT.
pub fn run(args: Args) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOGS));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bridge = Bridge::open(settings(args)?)?;
    let outcome = runtime.block_on(async {
        let signals = Signals::listen()?;
        bridge.run(async { _ = signals.came().await }).await.map_err(anyhow::Error::from)
    });
    runtime.shutdown_background();
    outcome
}

fn settings(args: Args) -> anyhow::Result<Settings> {
    let scheme = if args.access.is_tls() { "https" } else { "http" };
    let address = if args.node.contains("://") { args.node } else { format!("{scheme}://{}", args.node) };
    Ok(Settings {
        address,
        access: args.access.read()?,
        domain: args.domain,
        namespace: args.namespace,
        name: args.name,
        topics: Topics {
            image: args.image,
            compressed: args.compressed,
            camera_info: args.camera_info,
            depth: args.depth,
            command: args.command,
            detections: args.detections,
            mask: args.mask,
            verdicts: args.verdicts,
        },
        values: if args.labels { MaskValues::Labels } else { MaskValues::Binary },
        command: args.look_for,
    })
}
