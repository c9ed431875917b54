//! One object from the remote into the cache: to a partial file, unpacked, checked, stored.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectStoreExt};

use super::compress::{Size, unpack};
use super::event::Share;
use super::failure::Failure;
use super::layout::{self, Encoding};
use super::partial::{Partial, folder, temporary};
use super::request::{Attempts, blocking};
use super::{Remote, Watch};
use crate::cache::error::At;
use crate::cache::{Cache, Digest, files};

/// What is written to the partial file at a time.
const PIECE: usize = 1 << 20;

/// An object that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) digest: Digest,
    pub(super) size: Size,
    pub(super) executable: bool,
}

impl Remote {
    /// Brings an object into the cache.
    pub(super) async fn download(
        &self,
        cache: &Cache,
        wanted: Wanted,
        share: &mut Share<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let mut last = Failure::Missing;
        for encoding in Encoding::possible(wanted.size.most()) {
            match self.download_as(cache, wanted, *encoding, share, watch).await {
                // Who may not list a bucket is refused what is not there.
                Err(failure @ (Failure::Missing | Failure::Denied { .. })) => last = failure,
                done => return done,
            }
        }
        Err(last)
    }

    async fn download_as(
        &self,
        cache: &Cache,
        wanted: Wanted,
        encoding: Encoding,
        share: &mut Share<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let path = layout::object(&self.store(watch)?.prefix, &wanted.digest, encoding);
        let most = encoding.most(wanted.size.most());
        let opened = cache.clone();
        let open = move || Partial::open(&opened, &wanted.digest, encoding);
        let partial = Arc::new(blocking(open).await?);
        let mut resumed = partial.len()? > 0;
        loop {
            let done = match self.transfer(&path, &partial, most, share, watch).await {
                Ok(()) => {
                    let (cache, partial) = (cache.clone(), Arc::clone(&partial));
                    blocking(move || store(&cache, &partial, wanted, encoding)).await
                }
                failed => failed,
            };
            match done {
                // What was begun earlier may be of another upload, or the server knows no ranges.
                Err(Failure::Wrong(_) | Failure::Refused(_)) if resumed => {
                    resumed = false;
                    partial.clear()?;
                }
                Err(failure @ (Failure::Transient(_) | Failure::Off)) => {
                    // Kept, to go on from, where it can be found again and holds anything.
                    if partial.len()? == 0 || files::is_temporary(&partial.path) {
                        partial.remove()?;
                    }
                    return Err(failure);
                }
                Err(failure) => {
                    partial.remove()?;
                    return Err(failure);
                }
                Ok(()) => {
                    share.whole();
                    return Ok(());
                }
            }
        }
    }

    /// Fills a partial file; goes on where it broke off.
    async fn transfer(
        &self,
        path: &Path,
        partial: &Arc<Partial>,
        most: u64,
        share: &mut Share<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let store = self.store(watch)?;
        let mut attempts = Attempts::default();
        loop {
            if self.health.is_off() {
                return Err(Failure::Off);
            }
            let begun = self.health.begin();
            let start = partial.end()?;
            let range = (start > 0).then_some(GetRange::Offset(start));
            let options = GetOptions { range, ..GetOptions::default() };
            let answer =
                tokio::time::timeout(self.limits.stall, store.objects.get_opts(path, options));
            let failure = match answer.await {
                Ok(Ok(answer)) if answer.meta.size > most => {
                    self.health.answered();
                    let size = answer.meta.size;
                    let reason = format!("{path} has {size} bytes, at most {most} are expected");
                    return Err(Failure::Wrong(reason));
                }
                Ok(Ok(answer)) => match self.receive(answer, partial, start, share).await {
                    Ok(()) => {
                        self.health.answered();
                        return Ok(());
                    }
                    Err(failure) => failure,
                },
                Ok(Err(error)) => match Failure::of(&error) {
                    // There is nothing behind it: the file was complete already.
                    Failure::Refused(_) if start > 0 && self.complete(path, start, watch).await => {
                        return Ok(());
                    }
                    failure => failure,
                },
                Err(_) => self.stalled(),
            };
            // A large piece is progress: what breaks off now and then still comes to an end.
            let mut begun = begun;
            if partial.len()?.saturating_sub(start) >= PIECE as u64 {
                attempts.reset();
                self.health.answered();
                begun = self.health.begin();
            }
            self.failed(watch, begun, failure, &mut attempts).await?;
        }
    }

    fn stalled(&self) -> Failure {
        Failure::Transient(format!("nothing came for {} s", self.limits.stall.as_secs_f32()))
    }

    /// Whether the remote's object has as many bytes as arrived before.
    async fn complete(&self, path: &Path, arrived: u64, watch: Watch<'_>) -> bool {
        let Ok(store) = self.store(watch) else { return false };
        let head = tokio::time::timeout(self.limits.stall, store.objects.head(path)).await;
        matches!(head, Ok(Ok(meta)) if meta.size == arrived)
    }

    /// Writes what comes; what came before a failure stays.
    async fn receive(
        &self,
        answer: GetResult,
        partial: &Arc<Partial>,
        start: u64,
        share: &mut Share<'_>,
    ) -> Result<(), Failure> {
        let (size, range) = (answer.meta.size, answer.range.clone());
        if range.start != start || range.end != size {
            return Err(Failure::Refused("the server sent another range".to_owned()));
        }
        let mut stream = match answer.payload {
            GetResultPayload::File(mut file, path) => {
                let partial = Arc::clone(partial);
                let work = move || {
                    use std::io::{Read, Seek};
                    file.seek(std::io::SeekFrom::Start(start)).at("read", &path)?;
                    let mut file = file.take(size - start);
                    std::io::copy(&mut file, &mut &partial.file).at("copy", &path)?;
                    Ok(())
                };
                blocking(work).await?;
                share.at(size, size);
                return Ok(());
            }
            GetResultPayload::Stream(stream) => stream,
        };
        let mut arrived = start;
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut held = 0;
        let ended = loop {
            let next = tokio::time::timeout(self.limits.stall, stream.next()).await;
            match next {
                Ok(Some(Ok(bytes))) => {
                    arrived += bytes.len() as u64;
                    if arrived > size {
                        break Err(Failure::Wrong("more came than was announced".to_owned()));
                    }
                    held += bytes.len();
                    pieces.push(bytes);
                    if held >= PIECE {
                        held = 0;
                        write(partial, std::mem::take(&mut pieces)).await?;
                        share.at(arrived, size);
                    }
                }
                Ok(Some(Err(error))) => break Err(Failure::of(&error)),
                Ok(None) if arrived < size => {
                    break Err(Failure::Transient("the answer broke off".to_owned()));
                }
                Ok(None) => break Ok(()),
                Err(_) => break Err(self.stalled()),
            }
        };
        write(partial, pieces).await?;
        share.at(arrived.min(size), size);
        ended
    }
}

async fn write(partial: &Arc<Partial>, pieces: Vec<Bytes>) -> Result<(), Failure> {
    if pieces.is_empty() {
        return Ok(());
    }
    let partial = Arc::clone(partial);
    let work = move || {
        let mut file = &partial.file;
        for piece in &pieces {
            file.write_all(piece).at("write", &partial.path)?;
        }
        Ok(())
    };
    blocking(work).await
}

/// Unpacks, checks and stores what has arrived.
fn store(
    cache: &Cache,
    partial: &Partial,
    wanted: Wanted,
    encoding: Encoding,
) -> Result<(), Failure> {
    let target = temporary(&folder(cache)?);
    let stored = unpack(&partial.file, encoding, &target, &wanted.digest, wanted.size)
        .and_then(|()| Ok(cache.adopt(&target, &wanted.digest, wanted.executable)?));
    if stored.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&target);
    }
    stored?;
    partial.remove()
}
