//! Signals that ask a run to end: the first asks, the second kills.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often the run was asked to end; any number of stages listen, and none misses one.
#[derive(Clone, Debug)]
pub struct Signals {
    count: watch::Receiver<u32>,
}

/// Asks a run to end from within.
#[derive(Debug)]
pub struct Ender(watch::Sender<u32>);

impl Signals {
    /// Takes SIGINT, SIGTERM and SIGHUP over from the system. Must be called within a runtime.
    pub fn new() -> std::io::Result<(Self, Ender)> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let (sender, count) = watch::channel(0);
        let ender = Ender(sender.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                sender.send_modify(|count| *count += 1);
            }
        });
        Ok((Self { count }, ender))
    }

    /// Waits for the next one; one that came since this was cloned counts.
    pub async fn next(&mut self) {
        if self.count.changed().await.is_err() {
            // Nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }

    /// Whether one came that [`Signals::next`] has not told yet, such as one that the system delivered just now.
    pub async fn came(&self) -> bool {
        // The first time lets the runtime see it, the next one the task that counts.
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
        self.count.has_changed().unwrap_or(false)
    }

    /// Whether there was one.
    pub fn any(&self) -> bool {
        *self.count.borrow() > 0
    }
}

impl Ender {
    /// Asks once.
    pub fn end(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}
