//! The bridge's stream to the node: the newest frame out, answers in, and again from the start when it breaks.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use crate::chain::Chain;
use crate::client::{Access, Client, ClientError, Receiver, Reply, Sender};
use crate::server::wire;

/// Frames under way: one in work and one behind it, so that the node never waits for the network, nor the newest frame
/// behind old ones.
const UNDER_WAY: u64 = 2;
/// A frame that was dropped without a later answer to say so is not waited for longer.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);
/// Waits between attempts to reach the node: from the first, doubled up to the last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));

/// The newest frame that was not sent yet.
#[derive(Debug, Default)]
pub(super) struct Slot {
    newest: Mutex<Option<wire::Frame>>,
    came: Notify,
}

impl Slot {
    /// Puts a frame in the place of any that waits. Never waits itself.
    pub fn put(&self, frame: wire::Frame) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(frame);
        self.came.notify_one();
    }

    /// Takes the newest frame once there is one.
    async fn take(&self) -> wire::Frame {
        loop {
            let taken = self.newest.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(frame) = taken {
                return frame;
            }
            self.came.notified().await;
        }
    }
}

/// What the link needs.
pub(super) struct Link<'a, F: Fn(&wire::FrameResult)> {
    pub address: &'a str,
    pub access: &'a Access,
    pub slot: &'a Slot,
    pub targets: watch::Receiver<Vec<wire::Target>>,
    pub answered: F,
}

impl<F: Fn(&wire::FrameResult)> Link<'_, F> {
    /// Keeps a stream open for as long as it is polled.
    pub async fn run(mut self) -> Infallible {
        let mut wait = AGAIN.0;
        loop {
            let answers = watch::channel(0).0;
            let outcome = self.session(&answers).await;
            match &outcome {
                Ok(()) => warn!(node = self.address, "the node ended the stream"),
                Err(error) => warn!(node = self.address, error = %Chain(error), "no stream to the node"),
            }
            wait = if *answers.borrow() > 0 { AGAIN.0 } else { wait };
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(AGAIN.1);
        }
    }

    /// One stream from its beginning to its end. `settled` becomes the number of the last frame that was answered.
    async fn session(&mut self, settled: &watch::Sender<u64>) -> Result<(), ClientError> {
        let mut client = Client::connect_with(self.address, self.access).await?;
        let (sender, receiver) = client.stream().await?.split();
        info!(node = self.address, "stream open");
        let send = pin!(send(sender, self.slot, self.targets.clone(), settled.subscribe()));
        let mut receive = pin!(self.receive(receiver, settled));
        tokio::select! {
            outcome = &mut receive => outcome,
            // Only the reader knows why it ended.
            _ = send => receive.await,
        }
    }

    async fn receive(&self, mut receiver: Receiver, settled: &watch::Sender<u64>) -> Result<(), ClientError> {
        let settle = |seq: u64| settled.send_if_modified(|last| std::mem::replace(last, seq.max(*last)) < seq);
        let mut refused = String::new();
        while let Some(reply) = receiver.reply().await? {
            match reply {
                Reply::Frame(frame) => {
                    settle(frame.seq);
                    (self.answered)(&frame);
                }
                Reply::Rejected(rejected) => {
                    rejected.seq.map(settle);
                    let why = rejected.error.unwrap_or_default().message;
                    // The same for every frame of a camera that sends what the node does not take: said once.
                    if why != refused {
                        warn!(target_id = rejected.target_id, %why, "the node refused a request");
                        refused = why;
                    }
                }
                Reply::Answer(_) => {}
            }
        }
        Ok(())
    }
}

/// Sends targets whenever they change, and frames while there are any targets.
async fn send(
    mut sender: Sender,
    slot: &Slot,
    mut targets: watch::Receiver<Vec<wire::Target>>,
    mut settled: watch::Receiver<u64>,
) -> Result<Infallible, ClientError> {
    targets.mark_changed();
    let (mut sent, mut any) = (0, false);
    loop {
        let frame = async {
            let room = settled.wait_for(|last| sent < last + UNDER_WAY);
            let _ = tokio::time::timeout(SETTLED_WITHIN, room).await;
            slot.take().await
        };
        tokio::select! {
            biased;
            // The bridge holds the other end for as long as it polls this.
            Ok(()) = targets.changed() => {
                let now = targets.borrow_and_update().clone();
                any = !now.is_empty();
                sender.set(now).await?;
            }
            frame = frame, if any => sent = sender.frame(frame).await?,
        }
    }
}
