//! Memory of this process, as the system tells it.

/// Memory in use, in bytes; `None` where the system does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

/// The most that was ever in use, in bytes; `None` where the system does not say.
pub(crate) fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

fn status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
