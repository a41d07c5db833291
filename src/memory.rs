//! Memory of a process, as the system tells it.

/// Memory in use, in bytes; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    status("self", "VmRSS:")
}

/// Memory in use by the process of that id, in bytes; `None` where the system does not say.
pub(crate) fn resident_bytes_of(process: u32) -> Option<u64> {
    status(&process.to_string(), "VmRSS:")
}

/// The most that was ever in use, in bytes; `None` where the system does not say.
pub(crate) fn peak_bytes() -> Option<u64> {
    status("self", "VmHWM:")
}

fn status(process: &str, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
