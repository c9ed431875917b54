//! To the remote: all objects of a record, then the record.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::event::{Meter, Share};
use super::failure::Failure;
use super::{Remote, Watch, envelope, layout};
use crate::cache::{ActionRecord, Cache, Digest};

/// What a push sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Objects that were not there yet.
    pub objects: usize,
    /// Bytes of them that went over the line.
    pub bytes: u64,
}

impl Remote {
    /// Puts a result into the remote: what is not there yet of its objects, then its record.
    ///
    /// `None` if the remote may not be written to or if it failed, which is a warning: the run has
    /// its result anyway.
    pub async fn push(
        &self,
        cache: &Cache,
        record: &ActionRecord,
        watch: Watch<'_>,
    ) -> Option<Pushed> {
        if !self.writes() || self.is_off() || self.refused.load(Ordering::Relaxed) {
            return None;
        }
        match self.send_all(cache, record, watch).await {
            Ok(pushed) => Some(pushed),
            Err(Failure::Off) => None,
            Err(Failure::Denied { reason, .. }) => {
                if !self.refused.swap(true, Ordering::Relaxed) {
                    let url = self.url();
                    let words = format!(
                        "the remote cache {url} does not allow writing ({reason}); results are not pushed"
                    );
                    self.warn(watch, &words);
                }
                None
            }
            Err(failure) => {
                let words = failure.words();
                self.warn(watch, &format!("{} was not pushed: {words}", record.stage));
                None
            }
        }
    }

    async fn send_all(
        &self,
        cache: &Cache,
        record: &ActionRecord,
        watch: Watch<'_>,
    ) -> Result<Pushed, Failure> {
        let objects = objects(cache, record)?;
        let total = objects.values().sum();
        let meter = &Meter::new(watch, total);
        let each = objects.iter().map(|(digest, bytes)| async move {
            let mut share = Share::new(meter, *bytes);
            let _turn = self.turn().await?;
            self.upload(cache, digest, *bytes, &mut share, watch).await
        });
        let sent = stream::iter(each).buffer_unordered(self.limits.parallel);
        let add = |pushed: Pushed, sent: Option<u64>| async move {
            Ok(match sent {
                Some(bytes) => Pushed { objects: pushed.objects + 1, bytes: pushed.bytes + bytes },
                None => pushed,
            })
        };
        let pushed = sent.try_fold(Pushed::default(), add).await?;
        let store = self.store(watch)?;
        let key = record.key.digest();
        let replace = self.distrusts(&key);
        let sealed = envelope::seal(record, executable(cache, objects.keys()));
        let path = layout::record(&store.prefix, &key);
        self.put(store, &path, sealed.into(), replace, watch).await?;
        self.trust(&key);
        Ok(pushed)
    }
}

/// All objects of a record: files, manifests and the files of these, with their sizes.
fn objects(cache: &Cache, record: &ActionRecord) -> Result<BTreeMap<Digest, u64>, Failure> {
    let mut objects = BTreeMap::new();
    for output in record.outputs.values() {
        if !output.directory {
            objects.insert(output.digest, output.bytes);
            continue;
        }
        let manifest = cache.manifest(&output.digest).ok_or_else(|| {
            Failure::Wrong(format!("the manifest {} is gone", output.digest.short()))
        })?;
        objects.insert(output.digest, manifest.text().len() as u64);
        objects.extend(manifest.entries.iter().map(|entry| (entry.digest, entry.bytes)));
    }
    Ok(objects)
}

/// Those of some objects that are programs.
fn executable<'a>(cache: &Cache, objects: impl Iterator<Item = &'a Digest>) -> BTreeSet<Digest> {
    let program = |digest: &&Digest| {
        let metadata = std::fs::metadata(cache.object(digest));
        metadata.is_ok_and(|file| file.permissions().mode() & 0o111 != 0)
    };
    objects.filter(program).copied().collect()
}
