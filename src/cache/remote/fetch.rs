//! From the remote: a record, and all objects that it names.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};

use super::compress::Size;
use super::download::Wanted;
use super::event::{Meter, Share};
use super::failure::Failure;
use super::request::blocking;
use super::{Fetched, Remote, Watch, envelope, layout};
use crate::cache::error::CacheError;
use crate::cache::{ActionRecord, Cache, Digest, Manifest};

impl Remote {
    /// A result that the remote has, brought into the cache whole: its record is published there
    /// too. `None` for a miss of any kind; what was wrong is a warning. The cache must not be held
    /// meanwhile ([`Cache::share`]).
    ///
    /// # Errors
    ///
    /// Of this machine's cache alone.
    pub async fn pull(
        &self,
        cache: &Cache,
        key: &Digest,
        watch: Watch<'_>,
    ) -> Result<Option<ActionRecord>, CacheError> {
        let Some(fetched) = self.fetch_record(key, watch).await else { return Ok(None) };
        if !self.fetch_outputs(cache, &fetched, watch).await? {
            return Ok(None);
        }
        // A collection that went on meanwhile may have taken what no record named yet.
        let _hold = cache.share()?;
        if !fetched.record.outputs.values().all(|output| cache.is_sound(output)) {
            return Ok(None);
        }
        cache.record(&fetched.record)?;
        Ok(Some(fetched.record))
    }

    /// The record of a key, if the remote has one that can be believed.
    pub async fn fetch_record(&self, key: &Digest, watch: Watch<'_>) -> Option<Fetched> {
        match self.read_record(key, watch).await {
            Ok(bytes) => match envelope::open(&bytes, key) {
                Ok(fetched) => Some(fetched),
                Err(reason) => {
                    self.distrust(key);
                    self.warn(watch, &format!("the remote's record of {}: {reason}", key.short()));
                    None
                }
            },
            Err(Failure::Missing | Failure::Off) => None,
            Err(failure) => {
                let (key, words) = (key.short(), failure.words());
                if self.tells(&failure) {
                    self.warn(watch, &format!("the remote's record of {key}: {words}"));
                }
                None
            }
        }
    }

    async fn read_record(&self, key: &Digest, watch: Watch<'_>) -> Result<Vec<u8>, Failure> {
        let store = self.store(watch)?;
        let _turn = self.turn().await?;
        let path = layout::record(&store.prefix, key);
        let most = self.limits.record;
        let read = self.request(watch, self.limits.stall, || async {
            let answer = store.objects.get_opts(&path, object_store::GetOptions::default()).await?;
            if answer.meta.size > most {
                return Ok(None);
            }
            let mut stream = answer.into_stream();
            let mut bytes = Vec::new();
            while let Some(piece) = stream.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() as u64 > most {
                    return Ok(None);
                }
            }
            Ok(Some(bytes))
        });
        let read = read.await?;
        read.ok_or_else(|| {
            self.distrust(key);
            Failure::Wrong(format!("it has more than {most} bytes"))
        })
    }

    /// Brings all objects of a record that the cache lacks into it; whether all are there now.
    ///
    /// # Errors
    ///
    /// Of this machine's cache alone.
    pub async fn fetch_outputs(
        &self,
        cache: &Cache,
        fetched: &Fetched,
        watch: Watch<'_>,
    ) -> Result<bool, CacheError> {
        let failure = match self.outputs(cache, fetched, watch).await {
            Ok(()) => return Ok(true),
            Err(Failure::Local(error)) => return Err(error),
            Err(Failure::Off) => return Ok(false),
            Err(failure) => failure,
        };
        let record = &fetched.record;
        if matches!(failure, Failure::Missing | Failure::Wrong(_)) {
            // A record whose objects are not there or wrong is replaced by the next push.
            self.distrust(&record.key.digest());
        }
        if self.tells(&failure) {
            let words = failure.words();
            self.warn(watch, &format!("the remote's result of {}: {words}", record.stage));
        }
        Ok(false)
    }

    async fn outputs(
        &self,
        cache: &Cache,
        fetched: &Fetched,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let record = &fetched.record;
        let manifests = self.manifests(cache, record, watch).await?;
        let mut wanted = BTreeMap::new();
        let files = manifests.iter().flat_map(|manifest| &manifest.entries);
        let mut all: Vec<(Digest, u64)> = files.map(|it| (it.digest, it.bytes)).collect();
        let plain = record.outputs.values().filter(|output| !output.directory);
        all.extend(plain.map(|output| (output.digest, output.bytes)));
        for (digest, bytes) in all {
            if cache.holds(&digest, bytes) {
                continue;
            }
            if wanted.insert(digest, bytes).is_some_and(|other| other != bytes) {
                let reason = format!("object {} is said to have two sizes", digest.short());
                return Err(Failure::Wrong(reason));
            }
        }
        let total = wanted.values().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        room(cache, total)?;
        let meter = Meter::new(watch, total);
        let objects: Vec<Wanted> = wanted
            .into_iter()
            .map(|(digest, bytes)| Wanted {
                digest,
                size: Size::Exactly(bytes),
                executable: fetched.executable.contains(&digest),
            })
            .collect();
        self.objects(cache, objects, &meter, watch).await?;
        let own = cache.clone();
        blocking(move || Ok(manifests.iter().try_for_each(|it| own.link_tree(it))?)).await?;
        if !record.outputs.values().all(|output| cache.is_sound(output)) {
            return Err(Failure::Wrong("its outputs are not what it says".to_owned()));
        }
        Ok(())
    }

    /// Brings some objects into the cache, several at a time.
    async fn objects(
        &self,
        cache: &Cache,
        objects: Vec<Wanted>,
        meter: &Meter<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let each = objects.into_iter().map(|wanted| async move {
            let mut share = Share::new(meter, wanted.size.most());
            let _turn = self.turn().await?;
            let done = self.download(cache, wanted, &mut share, watch).await;
            if let Err(Failure::Missing | Failure::Wrong(_)) = &done {
                self.distrust(&wanted.digest);
            }
            if let Err(Failure::Missing) = done {
                let reason = format!("object {} is not there", wanted.digest.short());
                return Err(Failure::Wrong(reason));
            }
            done
        });
        let mut each = std::pin::pin!(stream::iter(each).buffer_unordered(self.limits.parallel));
        let mut wrong = None;
        while let Some(done) = each.next().await {
            match done {
                Ok(()) => {}
                // All that are wrong are found, so that the next push replaces them together.
                Err(failure @ Failure::Wrong(_)) => {
                    wrong.get_or_insert(failure);
                }
                Err(failure) => return Err(failure),
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The manifests of a record's folders, each checked against the record.
    async fn manifests(
        &self,
        cache: &Cache,
        record: &ActionRecord,
        watch: Watch<'_>,
    ) -> Result<Vec<Manifest>, Failure> {
        let folders = || record.outputs.values().filter(|output| output.directory);
        let missing: BTreeSet<Digest> = folders()
            .map(|output| output.digest)
            .filter(|digest| cache.manifest(digest).is_none())
            .collect();
        let size = Size::AtMost(self.limits.manifest);
        let wanted = |digest| Wanted { digest, size, executable: false };
        let meter = Meter::new(&|_| {}, 0);
        self.objects(cache, missing.into_iter().map(wanted).collect(), &meter, watch).await?;
        let mut manifests = Vec::new();
        for output in folders() {
            let wrong = |what: &str| {
                Failure::Wrong(format!("the manifest {} {what}", output.digest.short()))
            };
            let manifest = cache
                .manifest(&output.digest)
                .ok_or_else(|| wrong("is none, or leaves its folder"))?;
            if manifest.bytes() != output.bytes {
                return Err(wrong("has another size than the record says"));
            }
            if file_is_folder(&manifest) {
                return Err(wrong("has a file that is a folder too"));
            }
            manifests.push(manifest);
        }
        Ok(manifests)
    }
}

/// Whether a path of a manifest lies below another.
fn file_is_folder(manifest: &Manifest) -> bool {
    let paths: BTreeSet<&str> = manifest.entries.iter().map(|entry| &*entry.path).collect();
    let above = |path: &str| {
        let ends: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
        ends.iter().any(|at| paths.contains(&path[..*at]))
    };
    manifest.entries.iter().any(|entry| above(&entry.path))
}

/// Whether the disk has room for `bytes` more: a record may claim any size.
fn room(cache: &Cache, bytes: u64) -> Result<(), Failure> {
    use std::os::unix::ffi::OsStrExt;
    let Ok(path) = std::ffi::CString::new(cache.root().as_os_str().as_bytes()) else {
        return Ok(());
    };
    // SAFETY: an all-zero statvfs is a valid one: it has only integers.
    let mut disk: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with NUL and `disk` is ours, both for the length of the call.
    if unsafe { libc::statvfs(path.as_ptr(), &mut disk) } != 0 {
        return Ok(());
    }
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if bytes > free {
        return Err(Failure::Wrong(format!("it needs {bytes} bytes, the disk has {free} left")));
    }
    Ok(())
}
