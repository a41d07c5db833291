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

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use glibc::keep_freed;

/// Does nothing: how this system's allocator keeps memory is its own affair.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed() {}

fn status(process: &str, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use libc::{M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, c_int, mallopt};

    const MIB: c_int = 1 << 20;
    const SETTINGS: [(c_int, c_int); 3] = [
        // Larger blocks are mapped on their own and given back. The most that glibc takes, and more than a raw frame of
        // 3840 x 2160.
        (M_MMAP_THRESHOLD, 32 * MIB),
        // What may lie free at the end of each heap.
        (M_TRIM_THRESHOLD, 32 * MIB),
        // Heaps, by default eight a core, each of which would keep that much. What engines' threads allocate side by side
        // is little.
        (M_ARENA_MAX, 2),
    ];

    /// Has this process keep memory that it frees for what it allocates next. To be called before there are threads.
    ///
    /// A raw frame of 1920 x 1080 fills 1,500 pages, and glibc gives memory back as soon as two such buffers are free;
    /// to fault pages in again took longer than everything else that a node does with such a frame.
    pub(crate) fn keep_freed() {
        for (what, value) in SETTINGS {
            // SAFETY: mallopt takes two numbers, which it checks, and changes none but the allocator's own settings,
            // under the allocator's lock.
            let taken = unsafe { mallopt(what, value) };
            if taken == 0 {
                tracing::warn!(what, value, "the allocator does not take a setting: frames cost more time");
            }
        }
    }
}
