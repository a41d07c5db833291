//! The libraries, and their version.

use std::ffi::c_char;
use std::fmt;
use std::path::Path;
use std::ptr::NonNull;

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::{result, sys};

/// Environment variable with the folder of TensorRT's libraries, for where the system does not find them.
pub const LIBRARY_DIR: &str = "TENSORRT_LIB_DIR";

/// Which of NVIDIA's two TensorRTs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// TensorRT proper: servers and Jetson.
    Enterprise,
    /// TensorRT for RTX: PCs.
    Rtx,
}

/// A version of TensorRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version {
    /// Which TensorRT.
    pub flavour: Flavour,
    /// 10 or 11; 1 for RTX.
    pub major: u32,
    /// Within the major version.
    pub minor: u32,
    /// Within the minor version.
    pub patch: u32,
}

impl Version {
    /// The version that the number of `NV_TENSORRT_VERSION` and `getInferLibVersion` stands for.
    pub(crate) fn from_number(flavour: Flavour, number: i32) -> Self {
        let number = number.unsigned_abs();
        Self { flavour, major: number / 10_000, minor: number / 100 % 100, patch: number % 100 }
    }

    /// The version of the headers that this binary was compiled against.
    pub fn of_headers() -> Self {
        // SAFETY: both return a constant.
        let (flavour, number) = unsafe { (sys::trt_flavour(), sys::trt_header_version()) };
        Self::from_number(if flavour == 1 { Flavour::Rtx } else { Flavour::Enterprise }, number)
    }

    /// Whether objects of a library of version `library` can be used through headers of this one. The classes grow
    /// with minor versions, so only patches may differ.
    fn fits(self, library: Self) -> bool {
        (self.flavour, self.major, self.minor) == (library.flavour, library.major, library.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            Flavour::Enterprise => "TensorRT",
            Flavour::Rtx => "TensorRT for RTX",
        };
        write!(f, "{name} {}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// TensorRT's libraries, loaded for the rest of the process: they keep threads and static objects, so they are never
/// unloaded.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    raw: NonNull<sys::Library>,
    version: Version,
}

// SAFETY: behind the pointer is a table of functions that is written once, before `open` returns, and never freed.
unsafe impl Send for Library {}
// SAFETY: as for `Send`; the table is only read.
unsafe impl Sync for Library {}

impl Library {
    /// Loads the libraries from `directory`, or from where the system looks for them, and sends their log to
    /// `tracing`, target `tensorrt`.
    ///
    /// # Errors
    /// [`Kind::Library`] where they are missing or lack a function, [`Kind::Version`] where they are not of the
    /// headers' version.
    pub fn open(directory: Option<&Path>) -> Result<Self, TensorRtError> {
        // SAFETY: the sink is a function, and lives for ever.
        unsafe { sys::trt_set_log(log) };
        let headers = Version::of_headers();
        let raw = result::open(directory).map_err(|why| {
            let hint = format!("{why}; install it, or set {LIBRARY_DIR} to the folder that holds its libraries");
            TensorRtError::new(Kind::Library, headers.to_string(), hint)
        })?;
        // SAFETY: `raw` is a table of a library that was loaded.
        let version = Version::from_number(headers.flavour, unsafe { sys::trt_version(raw.as_ptr()) });
        check(headers, version)?;
        Ok(Self { raw, version })
    }

    /// As [`open`](Self::open), from the folder that the environment variable [`LIBRARY_DIR`] names, if it is set.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn find() -> Result<Self, TensorRtError> {
        let directory = std::env::var_os(LIBRARY_DIR).filter(|directory| !directory.is_empty());
        Self::open(directory.as_deref().map(Path::new))
    }

    /// The libraries' version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// File name of the core library that this binary looks for.
    pub fn file_name() -> String {
        // SAFETY: the shim returns a constant text.
        unsafe { result::text(sys::trt_core_name()) }
    }

    pub(super) fn as_ptr(&self) -> *const sys::Library {
        self.raw.as_ptr()
    }
}

/// Refuses a library that the headers do not describe.
fn check(headers: Version, library: Version) -> Result<(), TensorRtError> {
    if headers.fits(library) {
        return Ok(());
    }
    let why = format!("this binary was compiled against the headers of {headers}; install that, or build it again");
    Err(TensorRtError::new(Kind::Version, library.to_string(), why))
}

/// Forwards TensorRT's log.
extern "C" fn log(severity: i32, text: *const c_char) {
    // SAFETY: TensorRT's texts end with a zero and live during the call.
    let text = unsafe { result::text(text) };
    match severity {
        0 | 1 => tracing::error!(target: "tensorrt", "{text}"),
        2 => tracing::warn!(target: "tensorrt", "{text}"),
        3 => tracing::debug!(target: "tensorrt", "{text}"),
        _ => tracing::trace!(target: "tensorrt", "{text}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_versions() {
        let jetson = Version::from_number(Flavour::Enterprise, 100_300);
        assert_eq!(jetson.to_string(), "TensorRT 10.3.0");
        let rtx = Version::from_number(Flavour::Rtx, 10_701);
        assert_eq!(rtx.to_string(), "TensorRT for RTX 1.7.1");
    }

    #[test]
    fn only_patches_may_differ() {
        let version = |number| Version::from_number(Flavour::Enterprise, number);
        assert!(check(version(101_303), version(101_309)).is_ok());
        for (headers, library) in [(100_300, 101_303), (101_303, 100_300), (101_600, 110_100)] {
            let error = check(version(headers), version(library)).unwrap_err();
            assert_eq!(error.kind(), Kind::Version);
            let text = error.to_string();
            assert!(text.contains(&version(headers).to_string()), "{text}");
            assert!(text.contains(&version(library).to_string()), "{text}");
        }
    }
}
