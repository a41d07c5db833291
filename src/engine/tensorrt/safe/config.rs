//! What plans are to be like, how far shapes vary, and how a build gets on.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::result::{self, Refused, c_text, made};
use super::super::sys;
use super::builder::{Builder, Serialized};

/// What a plan is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BuildOptions {
    /// Compute capability times ten that the plan is for: 86, 89, 120; only TensorRT for RTX takes one.
    ///
    /// Default: that of the GPU at hand.
    pub sm: Option<u32>,
    /// How hard to look for fast kernels. Range: 0..=5. Default: the libraries' own, 3.
    pub level: Option<u8>,
    /// Most scratch memory that the plan may use, in bytes. Default: all there is.
    pub workspace_bytes: Option<u64>,
    /// Leaves the weights out of the plan; [`Engine::refit`](super::Engine::refit) puts them in again. Default: false.
    pub strip: bool,
    /// Makes a plan whose weights may stay in host memory and be streamed in. Default: false.
    pub stream_weights: bool,
    /// Lets products of 32-bit floats be computed with the precision of TF32. Default: false.
    pub tf32: bool,
}

/// How far an input's shape varies in one optimisation profile: dimensions, outermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The smallest.
    pub least: Vec<i64>,
    /// The one to be fast for.
    pub usual: Vec<i64>,
    /// The largest.
    pub most: Vec<i64>,
}

/// A step of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase<'a> {
    /// A phase starts, inside `parent` where there is one.
    Start {
        /// Its name.
        name: &'a str,
        /// The phase that it is part of.
        parent: Option<&'a str>,
        /// Number of its steps.
        steps: u32,
    },
    /// A step of the phase is done, counted from 0.
    Step {
        /// The phase.
        name: &'a str,
        /// The step.
        step: u32,
    },
    /// The phase is over, done or not.
    End {
        /// The phase.
        name: &'a str,
    },
}

/// Follows a build. Called by threads of TensorRT's own, several at a time.
pub trait Progress: Send + Sync {
    /// Something happened. Answers whether to go on; the build ends soon after the first `false`.
    fn report(&self, phase: Phase<'_>) -> bool;
}

/// What a [`Config`] holds for its monitor: at a fixed address, as TensorRT has it.
struct Follower {
    progress: Box<dyn Progress>,
    cancelled: AtomicBool,
}

/// A builder's configuration.
pub struct Config<'b> {
    raw: NonNull<sys::Config>,
    builder: &'b Builder,
    timing: Option<NonNull<sys::Timing>>,
    monitor: Option<(NonNull<sys::Monitor>, Box<Follower>)>,
}

impl<'b> Config<'b> {
    pub(super) fn new(builder: &'b Builder, options: &BuildOptions) -> Result<Self, TensorRtError> {
        // SAFETY: the builder lives, and is used by this thread alone.
        let raw = made(unsafe { sys::trt_config_new(builder.as_ptr()) });
        let raw = raw.map_err(|Refused| builder.error(Kind::Build, "a configuration"))?;
        let config = Self { raw, builder, timing: None, monitor: None };
        let plain = sys::Options {
            sm: options.sm.map_or(0, |sm| i32::try_from(sm).unwrap_or(i32::MAX)),
            level: options.level.map_or(-1, i32::from),
            workspace: options.workspace_bytes.unwrap_or(0),
            strip: options.strip,
            stream_weights: options.stream_weights,
            tf32: options.tf32,
        };
        // SAFETY: the configuration lives; the options outlive the call.
        match (unsafe { sys::trt_config_apply(raw.as_ptr(), &plain) }, options.sm) {
            (0, _) => Ok(config),
            (_, None) => Err(builder.error(Kind::Device, "the GPU at hand")),
            (_, Some(sm)) => {
                let why = format!("{} does not build for it on this machine", builder.library().version());
                Err(TensorRtError::new(Kind::Device, format!("sm{sm}"), why))
            }
        }
    }

    /// Adds an optimisation profile, and answers its number: how far each input with varying dimensions reaches.
    ///
    /// # Errors
    /// [`Kind::Shapes`] for ranks that differ or are too high, and for what TensorRT refuses.
    pub fn add_profile(&mut self, inputs: &[(String, Reach)]) -> Result<usize, TensorRtError> {
        // SAFETY: the builder lives, is used by this thread alone, and owns the profile.
        let profile = made(unsafe { sys::trt_profile_new(self.builder.as_ptr()) });
        let profile = profile.map_err(|Refused| self.builder.error(Kind::Shapes, "a profile"))?;
        for (name, reach) in inputs {
            let refuse = |why: &str| TensorRtError::new(Kind::Shapes, format!("input `{name}`"), why);
            let rank = reach.least.len();
            if rank > sys::MAX_DIMS || reach.usual.len() != rank || reach.most.len() != rank {
                return Err(refuse("the ranks differ or are above 8"));
            }
            let c_name = c_text(name.as_str()).map_err(|Refused| refuse("its name has a zero byte"))?;
            let [least, usual, most] = [&reach.least, &reach.usual, &reach.most].map(|dims| dims.as_ptr());
            // SAFETY: the profile lives as long as the builder; each pointer leads to `rank` dimensions.
            let set =
                unsafe { sys::trt_profile_set(profile.as_ptr(), c_name.as_ptr(), least, usual, most, rank as i32) };
            result::done(set).map_err(|Refused| self.builder.error(Kind::Shapes, format!("input `{name}`")))?;
        }
        // SAFETY: configuration and profile live.
        let number = unsafe { sys::trt_config_profile(self.raw.as_ptr(), profile.as_ptr()) };
        usize::try_from(number).map_err(|_| self.builder.error(Kind::Shapes, "a profile"))
    }

    /// Lets the build use the timings in `bytes` (none: an empty slice) and collect more. Answers whether it does:
    /// TensorRT for RTX times nothing, and timings of another GPU or version are not taken.
    pub fn use_timings(&mut self, bytes: &[u8]) -> bool {
        if self.timing.is_some() {
            return false;
        }
        // SAFETY: the configuration lives; the bytes outlive the call. The cache outlives the configuration.
        self.timing = NonNull::new(unsafe { sys::trt_timing_new(self.raw.as_ptr(), bytes.as_ptr(), bytes.len()) });
        self.timing.is_some()
    }

    /// The timings that builds with this configuration have used and collected.
    pub fn timings(&self) -> Option<Serialized<'_>> {
        // SAFETY: the cache lives as long as `self`.
        let memory = NonNull::new(unsafe { sys::trt_timing_save(self.timing?.as_ptr()) })?;
        // SAFETY: the block is new, so nobody else's.
        Some(unsafe { Serialized::new(memory) })
    }

    /// Has `progress` follow the builds.
    pub fn follow(&mut self, progress: Box<dyn Progress>) {
        let follower = Box::new(Follower { progress, cancelled: AtomicBool::new(false) });
        let user: *const Follower = &raw const *follower;
        // SAFETY: `user` leads to the follower's box, which is kept until the monitor is gone.
        let monitor = NonNull::new(unsafe { sys::trt_monitor_new(report, user.cast_mut().cast()) });
        let monitor = monitor.expect("there is memory for a monitor");
        // SAFETY: the configuration lives, and is not building.
        unsafe { sys::trt_config_monitor(self.raw.as_ptr(), monitor.as_ptr()) };
        let old = self.monitor.replace((monitor, follower));
        if let Some((monitor, _)) = old {
            // SAFETY: the configuration has another monitor now.
            unsafe { sys::trt_monitor_free(monitor.as_ptr()) };
        }
    }

    /// Whether the follower has asked to stop.
    pub(super) fn is_cancelled(&self) -> bool {
        self.monitor.as_ref().is_some_and(|(_, follower)| follower.cancelled.load(Ordering::Relaxed))
    }

    pub(super) fn builder(&self) -> &'b Builder {
        self.builder
    }

    pub(super) fn as_ptr(&mut self) -> *mut sys::Config {
        self.raw.as_ptr()
    }
}

impl Drop for Config<'_> {
    fn drop(&mut self) {
        // SAFETY: all live. The configuration goes first, as it refers to the other two.
        unsafe {
            sys::trt_config_free(self.raw.as_ptr());
            if let Some(timing) = self.timing {
                sys::trt_timing_free(timing.as_ptr());
            }
            if let Some((monitor, _)) = &self.monitor {
                sys::trt_monitor_free(monitor.as_ptr());
            }
        }
    }
}

/// What the shim's monitor calls.
extern "C" fn report(user: *mut c_void, event: i32, phase: *const c_char, parent: *const c_char, number: i32) -> bool {
    // SAFETY: `user` is the follower that `Config` keeps longer than the monitor; it is `Sync`.
    let follower = unsafe { &*user.cast::<Follower>() };
    // SAFETY: TensorRT's texts live during the call.
    let (name, parent) = unsafe { (result::text(phase), (!parent.is_null()).then(|| result::text(parent))) };
    let (name, number) = (name.as_str(), u32::try_from(number).unwrap_or(0));
    let phase = match event {
        0 => Phase::Start { name, parent: parent.as_deref(), steps: number },
        1 => Phase::Step { name, step: number },
        _ => Phase::End { name },
    };
    // A panic must not leave through C++; the build stops instead.
    let goes_on = catch_unwind(AssertUnwindSafe(|| follower.progress.report(phase))).unwrap_or(false);
    if !goes_on {
        follower.cancelled.store(true, Ordering::Relaxed);
    }
    !follower.cancelled.load(Ordering::Relaxed)
}
