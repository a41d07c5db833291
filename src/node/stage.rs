//! A thread that owns one stage of the pipeline, and watches over it.
//!
//! A stage that panics is thrown away, for nobody knows its state, and built anew on its thread, engines and all; until
//! it is there, frames are answered with the last masks. It comes back at once the first time; while it goes on to panic
//! with every job, or cannot be built, the waits between grow, so that a stage that is broken does not take the machine
//! with it. A stage that cannot be built at the start never was there: the node ends.
//!
//! A stage that hangs cannot be thrown away, for its thread cannot be ended from outside. It is told: the node is not
//! ready until it is back, and frames that others send are answered with the last masks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::scheduler::Event;
use super::{BoxError, NodeError, NodeErrorKind, StageName};
use crate::chain::Chain;

/// Builds a stage on the thread that will own it.
pub type Factory<S> = Box<dyn FnMut() -> Result<Box<S>, BoxError> + Send>;

/// The longest wait before a stage is built anew.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// How often a stage is built anew, and after how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restarts {
    /// In a row, without a job done between.
    pub most: u32,
    /// Before the second in a row; each further one twice as long.
    pub backoff: Duration,
}

impl Restarts {
    /// The wait before the restart number `nth`, from 1 on; `None` where it was the last.
    fn wait(&self, nth: u32) -> Option<Duration> {
        let doubled = |times: u32| self.backoff.saturating_mul(2u32.saturating_pow(times)).min(LONGEST_BACKOFF);
        (nth <= self.most).then(|| nth.checked_sub(2).map_or(Duration::ZERO, doubled))
    }
}

/// Why and when a stage is built anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restart {
    why: String,
    /// It is not built at once.
    pub waits: bool,
}

impl std::fmt::Display for Restart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "is being started again: {}", self.why)
    }
}

/// How a stage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Its factory is at work.
    Building,
    Idle,
    Busy,
    /// It panicked and is being built anew, or about to be.
    Restarting(Restart),
    /// It will not come back.
    Down(String),
}

/// The scheduler's end of a stage.
pub(super) struct Stage<J> {
    jobs: SyncSender<J>,
    pub condition: Condition,
    /// When it was given its last job.
    since: Instant,
}

impl<J: Send + 'static> Stage<J> {
    /// Starts the thread; [`Event::StageUp`] or [`Event::StageDown`] follows.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub(super) fn spawn<S: ?Sized + 'static>(
        (name, restarts): (StageName, Restarts),
        factory: Factory<S>,
        events: mpsc::Sender<Event>,
        work: impl Fn(&mut S, J, &dyn Fn(Event)) -> Event + Send + 'static,
    ) -> std::io::Result<Self> {
        // One job at a time: the scheduler gives the next when it has heard of the last.
        let (jobs, inbox) = sync_channel(1);
        let thread = std::thread::Builder::new().name(name.as_str().to_owned());
        // A failed send means that the scheduler is gone; the inbox closes with it.
        let emit = move |event| drop(events.blocking_send(event));
        thread.spawn(move || Watchdog { name, factory, restarts, in_a_row: 0, emit: &emit }.serve(&inbox, work))?;
        Ok(Self { jobs, condition: Condition::Building, since: Instant::now() })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.condition == Condition::Idle
    }

    /// How long it has been at one job, where that is longer than `limit`.
    pub(super) fn hangs(&self, limit: Duration) -> Option<Duration> {
        (self.condition == Condition::Busy).then(|| self.since.elapsed()).filter(|time| *time > limit)
    }

    /// Gives an idle stage its next job.
    pub(super) fn give(&mut self, job: J) {
        self.since = Instant::now();
        match self.jobs.try_send(job) {
            Ok(()) => self.condition = Condition::Busy,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.condition = Condition::Down("its thread is gone".to_owned());
            }
        }
    }

    /// The error that answers what a stage that is down cannot do.
    pub(super) fn down(&self, name: StageName) -> Option<NodeError> {
        match &self.condition {
            Condition::Down(why) => {
                Some(NodeError::new(NodeErrorKind::Stage, format!("use the {} stage: {why}", name.as_str())))
            }
            Condition::Building | Condition::Idle | Condition::Busy | Condition::Restarting(_) => None,
        }
    }

    /// The error that stands beside what a stage cannot do until it is back.
    pub(super) fn restarts(&self, name: StageName) -> Option<NodeError> {
        let Condition::Restarting(restart) = &self.condition else { return None };
        Some(NodeError::new(NodeErrorKind::Stage, format!("use the {} stage: it {restart}", name.as_str())))
    }
}

/// The thread's side of a stage.
struct Watchdog<'a, S: ?Sized> {
    name: StageName,
    factory: Factory<S>,
    restarts: Restarts,
    /// Restarts since the last job that was done.
    in_a_row: u32,
    emit: &'a dyn Fn(Event),
}

impl<S: ?Sized> Watchdog<'_, S> {
    fn serve<J>(mut self, inbox: &Receiver<J>, work: impl Fn(&mut S, J, &dyn Fn(Event)) -> Event) {
        let (name, emit) = (self.name, self.emit);
        let mut stage = match self.build() {
            Ok(stage) => stage,
            Err(why) => return emit(Event::StageDown(name, why)),
        };
        emit(Event::StageUp(name));
        while let Ok(job) = inbox.recv() {
            match catch_unwind(AssertUnwindSafe(|| work(&mut stage, job, emit))) {
                Ok(event) => {
                    self.in_a_row = 0;
                    emit(event);
                }
                Err(panic) => {
                    let what = panic_message(&*panic);
                    tracing::error!(stage = name.as_str(), panic = what, "stage panicked");
                    let error = format!("run the {} stage: it panicked", name.as_str());
                    emit(Event::StagePanicked(name, NodeError::new(NodeErrorKind::Stage, error)));
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(stage)));
                    let Some(anew) = self.restart("it panicked".to_owned()) else { return };
                    stage = anew;
                }
            }
        }
    }

    /// Builds the stage anew, however many tries that takes; `None` once it has had them all.
    fn restart(&mut self, mut why: String) -> Option<Box<S>> {
        loop {
            self.in_a_row += 1;
            let Some(wait) = self.restarts.wait(self.in_a_row) else {
                let times = self.in_a_row;
                (self.emit)(Event::StageDown(self.name, format!("{why}, {times} times in a row")));
                return None;
            };
            let restart = Restart { why: why.clone(), waits: !wait.is_zero() };
            (self.emit)(Event::StageRestarts(self.name, restart));
            std::thread::sleep(wait);
            match self.build() {
                Ok(stage) => {
                    tracing::warn!(stage = self.name.as_str(), "stage was built anew");
                    (self.emit)(Event::StageUp(self.name));
                    return Some(stage);
                }
                Err(error) => why = error,
            }
        }
    }

    fn build(&mut self) -> Result<Box<S>, String> {
        match catch_unwind(AssertUnwindSafe(&mut self.factory)) {
            Ok(Ok(stage)) => Ok(stage),
            Ok(Err(error)) => Err(Chain(&*error).to_string()),
            Err(panic) => Err(format!("its factory panicked: {}", panic_message(&*panic))),
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_between_restarts_grow_to_their_bound() {
        let restarts = Restarts { most: 9, backoff: Duration::from_secs(1) };
        let waits: Vec<_> = (1..=10).map(|nth| restarts.wait(nth).map(|w| w.as_secs())).collect();
        let expected = [Some(0), Some(1), Some(2), Some(4), Some(8), Some(16), Some(30), Some(30), Some(30), None];
        assert_eq!(waits, expected);
        assert_eq!(Restarts { most: 0, ..restarts }.wait(1), None);
    }
}
