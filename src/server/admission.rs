//! Who may open what: quotas of a client, and the memory of all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::Status;

use super::status;
use crate::memory::resident_bytes;
use crate::node::{Allowance, ConfigError, Quota};

const MIB: u64 = 1 << 20;
/// A client that has nothing open is forgotten after this long: no quota looks back further than a minute.
const FORGET: Duration = Duration::from_secs(120);

/// Limits on what clients may open.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Streams of one client at a time. Default: 0, no limit.
    pub client_streams: usize,
    /// Frames and groundings of one client.
    pub quota: Quota,
    /// Memory of the process, in MiB: sessions that would lead beyond it are refused. Default: 0, no limit.
    pub memory_mib: u64,
    /// What one session is reckoned to need at its most, in MiB: a waiting frame, two decoded ones, HTTP/2's window.
    /// Default: 32, enough for JPEG of 1920 x 1080. At least 1.
    pub session_mib: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { client_streams: 0, quota: Quota::default(), memory_mib: 0, session_mib: 32 }
    }
}

impl Limits {
    /// Refuses what is out of range.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let rate = |value: f32| value >= 0.0 && value.is_finite();
        let what = "must be 0 for no limit, or a number above";
        if !rate(self.quota.frames_per_s) {
            return Err(ConfigError::new("client_frames_per_s", what));
        }
        if !rate(self.quota.groundings_per_min) {
            return Err(ConfigError::new("client_groundings_per_min", what));
        }
        if self.session_mib == 0 {
            return Err(ConfigError::new("session_memory_mib", "must not be 0"));
        }
        if self.memory_mib > 0 && resident_bytes().is_none() {
            return Err(ConfigError::new(
                "memory_budget_mib",
                "cannot be kept: this system does not tell memory in use",
            ));
        }
        Ok(())
    }
}

/// Why a client was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No token, or a wrong one.
    Token,
    /// Too many streams.
    Streams,
    /// Too many unary calls in a second.
    Calls,
    /// Too many groundings in a minute, as unary calls.
    Groundings,
    /// No memory left for a session.
    Memory,
}

impl Refusal {
    /// Every reason, with its name in metrics.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Token, "token"),
        (Self::Streams, "streams"),
        (Self::Calls, "calls"),
        (Self::Groundings, "groundings"),
        (Self::Memory, "memory"),
    ];
}

/// A client with something open, or seen not long ago.
struct Known {
    allowance: Arc<Allowance>,
    streams: usize,
    seen: Instant,
}

#[derive(Default)]
struct State {
    clients: HashMap<Arc<str>, Known>,
    streams: u64,
    /// Memory in use when the first session came, in MiB: what the models take.
    base_mib: Option<u64>,
}

/// Keeps the limits.
pub(super) struct Admission {
    limits: Limits,
    state: Mutex<State>,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Admission {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default(), refused: Default::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `client` open a stream.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where it has too many, or memory is short.
    pub(super) fn stream(self: &Arc<Self>, client: &Arc<str>) -> Result<Admitted, Status> {
        let mut state = self.lock();
        let known = state.client(client, self.limits.quota);
        let (open, allowance) = (known.streams, known.allowance.clone());
        let most = self.limits.client_streams;
        if most > 0 && open >= most {
            let what = format!("open stream: this client has {open} already, its limit is {most}; close one first");
            return Err(self.refuse(Refusal::Streams, what));
        }
        if let Err(what) = state.check_memory(self.limits) {
            return Err(self.refuse(Refusal::Memory, what));
        }
        state.streams += 1;
        state.client(client, self.limits.quota).streams += 1;
        Ok(Admitted { admission: self.clone(), client: client.clone(), allowance })
    }

    /// Lets `client` ask once.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` where it has asked too often, or memory is short.
    pub(super) fn call(&self, client: &Arc<str>) -> Result<(), Status> {
        let mut state = self.lock();
        let allowance = state.client(client, self.limits.quota).allowance.clone();
        if let Err(what) = state.check_memory(self.limits) {
            return Err(self.refuse(Refusal::Memory, what));
        }
        drop(state);
        let counted = |refusal, error| {
            self.count_refused(refusal);
            status::status(&error)
        };
        allowance.frame().map_err(|error| counted(Refusal::Calls, error))?;
        allowance.grounding().map_err(|error| counted(Refusal::Groundings, error))
    }

    fn refuse(&self, refusal: Refusal, what: String) -> Status {
        self.count_refused(refusal);
        Status::resource_exhausted(what)
    }

    pub(super) fn count_refused(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize].load(Ordering::Relaxed)
    }
}

impl State {
    /// The client; a new one after those that are long gone were forgotten.
    fn client(&mut self, client: &Arc<str>, quota: Quota) -> &mut Known {
        let now = Instant::now();
        if !self.clients.contains_key(client) {
            self.clients.retain(|_, known| known.streams > 0 || now.saturating_duration_since(known.seen) < FORGET);
        }
        let known = self.clients.entry(client.clone()).or_insert_with(|| Known {
            allowance: Arc::new(Allowance::new(quota)),
            streams: 0,
            seen: now,
        });
        known.seen = now;
        known
    }

    /// Whether one session more fits: by what is in use, and by what those that are open may yet take.
    fn check_memory(&mut self, limits: Limits) -> Result<(), String> {
        if limits.memory_mib == 0 {
            return Ok(());
        }
        let now = resident_bytes().unwrap_or(0) / MIB;
        let base = *self.base_mib.get_or_insert(now);
        let reserved = base.saturating_add(limits.session_mib.saturating_mul(self.streams));
        let after = now.max(reserved).saturating_add(limits.session_mib);
        if after <= limits.memory_mib {
            return Ok(());
        }
        Err(format!(
            "open session: memory would come to {after} MiB of a budget of {} ({now} MiB in use, {} sessions open, {} \
             MiB each); close a session, or ask another node",
            limits.memory_mib, self.streams, limits.session_mib
        ))
    }
}

/// A stream that was let in; dropping it gives its place back.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    client: Arc<str>,
    pub allowance: Arc<Allowance>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.streams = state.streams.saturating_sub(1);
        if let Some(known) = state.clients.get_mut(&self.client) {
            known.streams = known.streams.saturating_sub(1);
            known.seen = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(limits: Limits) -> Arc<Admission> {
        limits.validate().expect("is in range");
        Admission::new(limits)
    }

    #[test]
    fn streams_of_a_client_are_counted_and_given_back() {
        let admission = admission(Limits { client_streams: 2, ..Limits::default() });
        let (one, other): (Arc<str>, Arc<str>) = ("token:one".into(), "token:other".into());
        let first = admission.stream(&one).expect("is let in");
        let _second = admission.stream(&one).expect("is let in");
        let refused = admission.stream(&one).err().expect("is refused");
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("its limit is 2"), "{refused}");
        assert!(admission.stream(&other).is_ok());
        drop(first);
        assert!(admission.stream(&one).is_ok());
        assert_eq!(admission.refused(Refusal::Streams), 1);
    }

    #[test]
    fn sessions_are_refused_before_the_budget_is_exceeded() {
        let in_use = resident_bytes().expect("Linux says") / MIB;
        let limits = Limits { memory_mib: in_use + 2500, session_mib: 1000, ..Limits::default() };
        let admission = admission(limits);
        let client: Arc<str> = "ip:::1".into();
        let first = admission.stream(&client).expect("fits");
        let _second = admission.stream(&client).expect("fits");
        // Nothing has been allocated yet, and a third would not fit once the two have what they may take.
        let refused = admission.stream(&client).err().expect("does not fit");
        assert!(refused.message().contains("2 sessions open"), "{refused}");
        assert!(admission.call(&client).is_err());
        drop(first);
        assert!(admission.stream(&client).is_ok());
        assert_eq!(admission.refused(Refusal::Memory), 2);
    }

    #[test]
    fn limits_are_checked() {
        let bad = |limits: Limits| limits.validate().expect_err("is out of range").setting();
        let quota = |frames_per_s, groundings_per_min| Quota { frames_per_s, groundings_per_min };
        assert_eq!(bad(Limits { quota: quota(-1.0, 0.0), ..Limits::default() }), "client_frames_per_s");
        assert_eq!(bad(Limits { quota: quota(0.0, f32::NAN), ..Limits::default() }), "client_groundings_per_min");
        assert_eq!(bad(Limits { session_mib: 0, ..Limits::default() }), "session_memory_mib");
    }
}
