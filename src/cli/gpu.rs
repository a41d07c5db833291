//! The GPU from the command line: the arguments of `--backend tensorrt`, and what they choose.

use anyhow::Context;

use super::plans::init_logs;
use super::stages::Engines;
use crate::engine::bundle::Bundle;
use crate::engine::tensorrt::Buffers;
use crate::model::gpu::PlanLoader;
use crate::model::plans::Precision;
use crate::model::stages::{LoadError, LoadOptions};

/// How inputs and outputs pass between host and GPU.
#[derive(Debug, Clone, clap::Args)]
pub struct BufferArgs {
    /// Whether what engines take and give is copied to a GPU and back, or mapped for it; for finding faults.
    #[arg(long, env = "SAM4MLLM_GPU_BUFFERS", value_enum, default_value_t)]
    pub gpu_buffers: Buffers,
}

/// How engines run on a GPU.
#[derive(Debug, Clone, clap::Args)]
pub struct GpuArgs {
    /// What matrix products are computed in on a GPU; all else stays in 32 bits.
    #[arg(long, env = "SAM4MLLM_PRECISION", value_enum, default_value_t = Precision::Fp16)]
    pub precision: Precision,
    /// Longest conversation on a GPU, in tokens; less needs less memory. Default: what the checkpoint knows.
    #[arg(long, env = "SAM4MLLM_POSITIONS")]
    pub positions: Option<u32>,
    /// Enqueue each pass on a GPU anew instead of launching what comes again as a CUDA graph.
    #[arg(long, env = "SAM4MLLM_NO_CUDA_GRAPHS")]
    pub no_cuda_graphs: bool,
    #[command(flatten)]
    pub buffers: BufferArgs,
    /// Where `--backend tensorrt` cannot be had, say so and compute on the CPU instead of stopping.
    #[arg(long, env = "SAM4MLLM_CPU_FALLBACK")]
    pub cpu_fallback: bool,
}

impl GpuArgs {
    /// Engines on the GPU, their plans built where they are missing; `on_cpu` where there can be none and that may be.
    pub fn engines(&self, bundle: &Bundle, on_cpu: Engines) -> anyhow::Result<Engines> {
        init_logs();
        let found = PlanLoader::find(self.precision, self.positions, self.buffers.gpu_buffers)
            .map_err(LoadError::from)
            .and_then(|loader| {
                let loader = loader.with_cuda_graphs(!self.no_cuda_graphs);
                loader.prepare(bundle, &on_cpu.options.cache_dir())?;
                Ok(loader)
            });
        match found {
            Ok(loader) => {
                let version = format!("{}, {}", loader.version(), self.precision.name());
                let (device, buffers) = (loader.device(), loader.device().buffers().name());
                tracing::info!(gpu = device.name(), sm = device.sm(), buffers, %version, "found a GPU");
                let options = LoadOptions { gpu: Some(loader), ..on_cpu.options };
                Ok(Engines { options, backend: "tensorrt", version })
            }
            Err(error) if self.cpu_fallback => {
                let error = anyhow::Error::from(error);
                tracing::warn!(error = format!("{error:#}"), "no engines on a GPU; computing on the CPU");
                Ok(on_cpu)
            }
            Err(error) => Err(error).context(
                "use --backend tensorrt (--backend rten computes on the CPU, --cpu-fallback does where there is no GPU)",
            ),
        }
    }
}
