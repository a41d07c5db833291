//! Memory that both sides have: where the GPU is one with the CPU's memory, nothing needs to be copied.
//!
//! On a board such as a Jetson the GPU reads and writes the host's memory where it is, once it is mapped. What an engine
//! takes from the host and gives to it is then bound there. On a card of its own the same would cross the bus with every
//! access, so there everything is copied.
//!
//! Neither side sees the other's work in the middle of it. The host writes before the computation is put onto the stream,
//! and reads, as it writes again, after the stream was waited for: those are the points at which CUDA makes the writes of
//! one side visible to the other. What stays on the device, and outputs that are sized late, has memory of the GPU's as
//! ever.

use std::ffi::c_void;
use std::mem::MaybeUninit;

use cudarc::driver::sys::{self, CUdeviceptr};

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::cuda::{Device, HostBuffer, failed};

/// Of `CU_MEMHOSTALLOC_*`: mapped for the GPU, and written past the CPU's caches, where reading is slow.
const DEVICE_MAP: u32 = 2;
const WRITE_COMBINED: u32 = 4;

/// How inputs and outputs pass between host and GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
#[non_exhaustive]
pub enum Buffers {
    /// Mapped where CPU and GPU share their memory, copied elsewhere.
    #[default]
    Auto,
    /// Pinned, and copied to the GPU and back.
    Copied,
    /// In memory of the host's that the GPU reads and writes where it is.
    Mapped,
}

impl Buffers {
    /// Its name, as arguments have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Copied => "copied",
            Self::Mapped => "mapped",
        }
    }

    /// Whether to map, on a device that can or cannot, and shares its memory with the CPU or does not.
    ///
    /// # Errors
    /// [`Kind::Driver`] where that is asked for and cannot be.
    pub(super) fn are_mapped(self, maps: bool, integrated: bool) -> Result<bool, TensorRtError> {
        match self {
            Self::Copied => Ok(false),
            Self::Auto => Ok(maps && integrated),
            Self::Mapped if maps => Ok(true),
            Self::Mapped => {
                let why = "it cannot map memory of the host's: have buffers copied";
                Err(TensorRtError::new(Kind::Driver, "the GPU", why))
            }
        }
    }
}

/// Memory of the host's that the GPU has too, aligned to 256 bytes and more on both sides.
#[derive(Debug)]
pub(super) struct MappedBuffer {
    host: HostBuffer,
    address: CUdeviceptr,
}

impl MappedBuffer {
    /// `bytes` of it, all zero; at least 1. What the host only ever writes is written past its caches.
    pub(super) fn new(device: &Device, bytes: usize, written_only: bool) -> Result<Self, TensorRtError> {
        let combined = if written_only { WRITE_COMBINED } else { 0 };
        let host = HostBuffer::with_flags(device, bytes, DEVICE_MAP | combined)?;
        let mut address = MaybeUninit::uninit();
        // SAFETY: a context is current, `host` was made to be mapped, and the driver writes to `address` where it
        // succeeds.
        let address = unsafe {
            let found = sys::cuMemHostGetDevicePointer_v2(address.as_mut_ptr(), host.address.as_ptr().cast(), 0);
            found.result().map_err(failed)?;
            address.assume_init()
        };
        Ok(Self { host, address })
    }

    /// Where it is on the GPU.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.address as *mut c_void
    }

    /// The same on the host.
    pub(super) fn host(&self) -> &HostBuffer {
        &self.host
    }

    /// The same, to write.
    pub(super) fn host_mut(&mut self) -> &mut HostBuffer {
        &mut self.host
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_mapped_where_that_saves_copies() {
        let mapped = |buffers: Buffers, maps, integrated| buffers.are_mapped(maps, integrated).ok();
        assert_eq!(mapped(Buffers::Auto, true, true), Some(true));
        assert_eq!(mapped(Buffers::Auto, true, false), Some(false));
        assert_eq!(mapped(Buffers::Auto, false, true), Some(false));
        assert_eq!(mapped(Buffers::Copied, true, true), Some(false));
        assert_eq!(mapped(Buffers::Mapped, true, false), Some(true));
        assert_eq!(mapped(Buffers::Mapped, false, true), None);
    }
}
