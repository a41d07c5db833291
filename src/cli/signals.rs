//! The signals that end a program that runs until it is told to.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, from when it was made on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens for them; to be called within a tokio runtime.
    ///
    /// # Errors
    /// Where the system takes no handler.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the first one: its name.
    pub async fn came(mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
