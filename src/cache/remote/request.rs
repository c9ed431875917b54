//! A request: bounded in time, tried again, and counted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::failure::Failure;
use super::{Remote, Watch};

/// How often something was tried in vain.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    made: u32,
}

impl Attempts {
    /// Forgets them: it got further.
    pub(super) fn reset(&mut self) {
        self.made = 0;
    }
}

impl Remote {
    /// Makes a request, again if it fails in a way that may pass. `limit` bounds each attempt.
    pub(super) async fn request<T, F>(
        &self,
        watch: Watch<'_>,
        limit: Duration,
        make: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let mut attempts = Attempts::default();
        loop {
            if self.health.is_off() {
                return Err(Failure::Off);
            }
            let begun = self.health.begin();
            let failure = match tokio::time::timeout(limit, make()).await {
                Ok(Ok(answer)) => {
                    self.health.answered();
                    return Ok(answer);
                }
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => Failure::Transient(format!("no answer for {} s", limit.as_secs_f32())),
            };
            self.failed(watch, begun, failure, &mut attempts).await?;
        }
    }

    /// After a failure: counts it, and waits if another attempt is worth while.
    pub(super) async fn failed(
        &self,
        watch: Watch<'_>,
        begun: u32,
        failure: Failure,
        attempts: &mut Attempts,
    ) -> Result<(), Failure> {
        let reason = match failure {
            Failure::Transient(reason) => reason,
            Failure::Denied { reason, identity: true } => {
                self.switch_off(watch, &format!("does not accept the credentials ({reason})"));
                return Err(Failure::Off);
            }
            other => {
                // Even a refusal is an answer.
                self.health.answered();
                return Err(other);
            }
        };
        if self.health.failed(begun) {
            // Marked as off already: only the words are missing.
            let words = format!(
                "the remote cache {} failed too often ({reason}); going on without it",
                self.url()
            );
            self.warn(watch, &words);
            return Err(Failure::Off);
        }
        attempts.made += 1;
        if attempts.made >= self.limits.attempts {
            return Err(Failure::Transient(reason));
        }
        let wait = self.limits.backoff * (1 << (attempts.made - 1).min(6));
        tokio::time::sleep(wait + jitter(wait / 2)).await;
        Ok(())
    }
}

/// Up to `most`, so that machines that failed together do not come back together.
fn jitter(most: Duration) -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    most * (since.subsec_nanos() % 1000) / 1000
}

/// Does something that keeps a thread busy or waits for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Err(Failure::Off),
        },
    }
}
