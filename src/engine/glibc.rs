//! Settings of glibc's allocator: here, where the bindings are, since they are set through C.

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
