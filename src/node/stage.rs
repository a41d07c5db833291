//! A thread that owns one stage of the pipeline.
//!
//! A stage that panics is thrown away, for nobody knows its state, and built anew once; if the next job panics too,
//! it is the job or the stage itself, and the thread ends. The node goes on without it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::mpsc;

use super::scheduler::Event;
use super::{BoxError, NodeError, NodeErrorKind, StageName};

/// Builds a stage on the thread that will own it.
pub type Factory<S> = Box<dyn FnMut() -> Result<Box<S>, BoxError> + Send>;

/// How a stage is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// Its factory is at work.
    Building,
    Idle,
    Busy,
    /// It will not come back.
    Down(String),
}

/// The scheduler's end of a stage.
pub(super) struct Stage<J> {
    jobs: SyncSender<J>,
    pub condition: Condition,
}

impl<J: Send + 'static> Stage<J> {
    /// Starts the thread; [`Event::StageUp`] or [`Event::StageDown`] follows.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub(super) fn spawn<S: ?Sized + 'static>(
        name: StageName,
        factory: Factory<S>,
        events: mpsc::Sender<Event>,
        work: impl Fn(&mut S, J, &dyn Fn(Event)) -> Event + Send + 'static,
    ) -> std::io::Result<Self> {
        // One job at a time: the scheduler gives the next when it has heard of the last.
        let (jobs, inbox) = sync_channel(1);
        let thread = std::thread::Builder::new().name(name.as_str().to_owned());
        thread.spawn(move || serve(name, factory, &inbox, &events, work))?;
        Ok(Self { jobs, condition: Condition::Building })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.condition == Condition::Idle
    }

    /// Gives an idle stage its next job.
    pub(super) fn give(&mut self, job: J) {
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
            Condition::Building | Condition::Idle | Condition::Busy => None,
        }
    }
}

fn serve<S: ?Sized, J>(
    name: StageName,
    mut factory: Factory<S>,
    inbox: &Receiver<J>,
    events: &mpsc::Sender<Event>,
    work: impl Fn(&mut S, J, &dyn Fn(Event)) -> Event,
) {
    // A failed send means that the scheduler is gone; the inbox closes with it.
    let emit = |event| drop(events.blocking_send(event));
    let Some(mut stage) = build(name, &mut factory, &emit) else { return };
    let mut crashed = false;
    while let Ok(job) = inbox.recv() {
        match catch_unwind(AssertUnwindSafe(|| work(&mut stage, job, &emit))) {
            Ok(event) => {
                crashed = false;
                emit(event);
            }
            Err(panic) => {
                let what = panic_message(&*panic);
                tracing::error!(stage = name.as_str(), panic = what, "stage panicked");
                let error =
                    NodeError::new(NodeErrorKind::Stage, format!("run the {} stage: it panicked", name.as_str()));
                emit(Event::StagePanicked(name, error));
                let _ = catch_unwind(AssertUnwindSafe(|| drop(stage)));
                if crashed {
                    emit(Event::StageDown(name, "it panicked twice".to_owned()));
                    return;
                }
                crashed = true;
                let Some(anew) = build(name, &mut factory, &emit) else { return };
                stage = anew;
            }
        }
    }
}

fn build<S: ?Sized>(name: StageName, factory: &mut Factory<S>, emit: &dyn Fn(Event)) -> Option<Box<S>> {
    let outcome = match catch_unwind(AssertUnwindSafe(factory)) {
        Ok(Ok(stage)) => Ok(stage),
        Ok(Err(error)) => Err(format!("{:#}", Chain(&*error))),
        Err(panic) => Err(format!("its factory panicked: {}", panic_message(&*panic))),
    };
    match outcome {
        Ok(stage) => {
            emit(Event::StageUp(name));
            Some(stage)
        }
        Err(why) => {
            emit(Event::StageDown(name, why));
            None
        }
    }
}

/// An error with all its causes.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        std::iter::successors(self.0.source(), |e| e.source()).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why")
}
