//! `sam4mllm engine probe`: what of TensorRT and of a GPU this machine has.

use std::path::Path;
use std::{env, fs, process};

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use super::gpu::BufferArgs;
use crate::engine::tensorrt::plan::{Recipe, Source, make};
use crate::engine::tensorrt::{Builder, Device, Library, PlanStore, Runtime, TensorRtError, Version};
use crate::import::half_product;

/// Looks for everything that a plan needs: what is printed, and whether it is all there.
pub fn run(args: &BufferArgs) -> (String, bool) {
    let (library, device) = (Library::find(), Device::open_with(args.gpu_buffers));
    let mut rows = vec![("compiled for", Ok(Version::of_headers().to_string()))];
    let told = |library: &Library| library.version().to_string();
    rows.push(("libraries", library.as_ref().map(told).map_err(TensorRtError::to_string)));
    rows.push(("GPU", device.as_ref().map_err(TensorRtError::to_string).and_then(gpu)));
    // A library may refuse the GPU as late as when it loads what it has built for it.
    if let (Ok(library), Ok(_)) = (&library, &device) {
        let builder = Builder::new(*library);
        rows.push(("builder", builder.as_ref().map(|_| "is made".to_owned()).map_err(TensorRtError::to_string)));
        if let Ok(builder) = builder {
            rows.push(("plan", trial(&builder).map_err(|e| e.to_string())));
        }
    }
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    let complete = rows.iter().all(|(_, found)| found.is_ok());
    for (what, found) in rows {
        let (verdict, text) = match found {
            Ok(text) => ("ok", text),
            Err(why) => ("missing", why),
        };
        table.add_row([what, verdict, &text]);
    }
    (format!("{table}\n"), complete)
}

/// Builds one of the smallest plans there are, and loads it.
fn trial(builder: &Builder) -> Result<String, TensorRtError> {
    let (onnx, folder) = (half_product(64), env::temp_dir().join(format!("sam4mllm-probe-{}", process::id())));
    let source =
        Source { name: "trial", onnx: &onnx, path: Path::new("trial.onnx"), weights: "none", precision: "fp16" };
    // Nobody else's: what lies there would be loaded.
    fs::create_dir(&folder).map_err(|why| TensorRtError::file(&folder, why))?;
    let loaded = PlanStore::open(&folder)
        .and_then(|store| make(builder, &store, &Recipe::new(&builder.library(), None)?, (&source, &[]), None))
        .and_then(|made| Runtime::new(builder.library())?.load(&made.plan));
    // Whatever is left there does no harm.
    let _ = fs::remove_dir_all(folder);
    loaded.map(|_| "is built and loaded".to_owned())
}

fn gpu(device: &Device) -> Result<String, String> {
    let (free, total) = device.memory().map_err(|e| e.to_string())?;
    let mib = |bytes: u64| bytes >> 20;
    let (name, sm, buffers) = (device.name(), device.sm(), device.buffers().name());
    Ok(format!("{name}, sm{sm}, {} of {} MiB free, buffers {buffers}", mib(free), mib(total)))
}
