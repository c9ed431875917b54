//! A remote in use.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::connect::{Store, connect};
use super::failure::{Failure, printable};
use super::health::Health;
use super::location::{Location, public};
use super::{Limits, RemoteError, RemoteEvent, RemoteSpec, Watch, credentials};
use crate::cache::Digest;
use crate::config::RemoteMode;

/// A remote cache in use: all that a run needs of it.
///
/// Its calls may be under way at the same time, and stay within the task that waits for them.
pub struct Remote {
    pub(super) limits: Limits,
    pub(super) health: Health,
    /// Objects and records that may still be taken into transfer.
    pub(super) turns: Semaphore,
    spec: RemoteSpec,
    location: Location,
    secrets: Vec<String>,
    store: OnceLock<Result<Store, String>>,
    no_create: AtomicBool,
    /// What was found to be wrong there: it is replaced when it is pushed.
    bad: Mutex<BTreeSet<Digest>>,
    /// Its credentials do not allow writing.
    pub(super) refused: AtomicBool,
    /// A refusal to read was told.
    told: AtomicBool,
}

impl Remote {
    /// A remote; nothing is asked of it yet.
    ///
    /// # Errors
    ///
    /// [`RemoteError::Address`] for what is no remote's address.
    pub fn open(spec: &RemoteSpec) -> Result<Self, RemoteError> {
        Ok(Self {
            limits: spec.limits.clone(),
            health: Health::new(spec.limits.failures),
            turns: Semaphore::new(spec.limits.parallel.max(1)),
            location: Location::parse(&spec.url)?,
            secrets: credentials::secrets(spec),
            spec: spec.clone(),
            store: OnceLock::new(),
            no_create: false.into(),
            bad: Mutex::default(),
            refused: false.into(),
            told: false.into(),
        })
    }

    /// Its address, as it may be shown.
    pub fn url(&self) -> String {
        public(&self.spec.url)
    }

    /// Whether results may be put into it.
    pub fn writes(&self) -> bool {
        self.spec.mode == RemoteMode::ReadWrite
    }

    /// Whether it was switched off: it failed too often, or does not accept the credentials.
    pub fn is_off(&self) -> bool {
        self.health.is_off()
    }

    /// Waits for a turn: so many transfers are under way at a time, of however many records.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.turns.acquire().await.map_err(|_| Failure::Off)
    }

    /// The client, made at the first call.
    pub(super) fn store(&self, watch: Watch<'_>) -> Result<&Store, Failure> {
        if self.health.is_off() {
            return Err(Failure::Off);
        }
        match self.store.get_or_init(|| connect(&self.location, &self.spec)) {
            Ok(store) => Ok(store),
            Err(reason) => {
                self.switch_off(watch, &format!("cannot be used: {reason}"));
                Err(Failure::Off)
            }
        }
    }

    /// Whether uploads can be refused where there is something already.
    pub(super) fn creates(&self, store: &Store) -> bool {
        store.create && !self.no_create.load(Ordering::Relaxed)
    }

    /// The service turned out not to know conditional uploads.
    pub(super) fn never_creates(&self) {
        self.no_create.store(true, Ordering::Relaxed);
    }

    /// Ends the use of the remote, with one warning.
    pub(super) fn switch_off(&self, watch: Watch<'_>, what: &str) {
        if self.health.switch_off() {
            self.warn(
                watch,
                &format!("the remote cache {} {what}; going on without it", self.url()),
            );
        }
    }

    /// Warns, without secrets.
    pub(super) fn warn(&self, watch: Watch<'_>, message: &str) {
        let clean = |text: String, secret: &String| text.replace(secret, "…");
        let message = self.secrets.iter().fold(printable(message, 600), clean);
        watch(RemoteEvent::Warning(&message));
    }

    /// Whether a failure is worth a warning: a refusal to read is one only once, because services
    /// that may not list a bucket refuse instead of saying that something is not there.
    pub(super) fn tells(&self, failure: &Failure) -> bool {
        !matches!(failure, Failure::Denied { .. }) || !self.told.swap(true, Ordering::Relaxed)
    }

    /// Remembers that what is there under a digest is wrong.
    pub(super) fn distrust(&self, digest: &Digest) {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).insert(*digest);
    }

    /// Whether what is there under a digest must be replaced.
    pub(super) fn distrusts(&self, digest: &Digest) -> bool {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).contains(digest)
    }

    /// What was wrong is replaced.
    pub(super) fn trust(&self, digest: &Digest) {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("spec", &self.spec).field("health", &self.health).finish()
    }
}
