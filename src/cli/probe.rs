//! `sam4mllm engine probe`: what of TensorRT and of a GPU this machine has.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use super::gpu::BufferArgs;
use crate::engine::tensorrt::{Builder, Device, Library, TensorRtError, Version};

/// Looks for everything that a plan needs: what is printed, and whether it is all there.
pub fn run(args: &BufferArgs) -> (String, bool) {
    let (library, device) = (Library::find(), Device::open_with(args.gpu_buffers));
    let mut rows = vec![("compiled for", Ok(Version::of_headers().to_string()))];
    let told = |library: &Library| library.version().to_string();
    rows.push(("libraries", library.as_ref().map(told).map_err(TensorRtError::to_string)));
    rows.push(("GPU", device.as_ref().map_err(TensorRtError::to_string).and_then(gpu)));
    // A library may refuse the GPU, which is known once it makes a builder for it.
    if let (Ok(library), Ok(_)) = (&library, &device) {
        rows.push(("builder", Builder::new(*library).map(|_| "is made".to_owned()).map_err(|e| e.to_string())));
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

fn gpu(device: &Device) -> Result<String, String> {
    let (free, total) = device.memory().map_err(|e| e.to_string())?;
    let mib = |bytes: u64| bytes >> 20;
    let (name, sm, buffers) = (device.name(), device.sm(), device.buffers().name());
    Ok(format!("{name}, sm{sm}, {} of {} MiB free, buffers {buffers}", mib(free), mib(total)))
}
