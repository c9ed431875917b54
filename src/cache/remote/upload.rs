//! One object from the cache into the remote, unless it is there.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::compress::{Content, Packed, pack};
use super::connect::Store;
use super::event::Share;
use super::failure::Failure;
use super::layout::{self, Encoding};
use super::request::blocking;
use super::{Remote, Watch, partial};
use crate::cache::error::At;
use crate::cache::{Cache, Digest};

/// Parts of one object in transfer at a time.
const PARALLEL_PARTS: usize = 4;

/// Most parts of an upload; S3 takes 10,000.
const PARTS: u64 = 9_000;

impl Remote {
    /// Sends an object of `bytes` bytes; how many went over the line, `None` if it was there.
    pub(super) async fn upload(
        &self,
        cache: &Cache,
        digest: &Digest,
        bytes: u64,
        share: &mut Share<'_>,
        watch: Watch<'_>,
    ) -> Result<Option<u64>, Failure> {
        let store = self.store(watch)?;
        let replace = self.distrusts(digest);
        if !replace && self.there(store, digest, bytes, watch).await? {
            share.whole();
            return Ok(None);
        }
        let (object, own, digest) = (cache.object(digest), cache.clone(), *digest);
        let work = move || pack(&object, &digest, bytes, &partial::folder(&own)?);
        let packed = blocking(work).await?;
        let sent = packed.bytes;
        let path = layout::object(&store.prefix, &digest, packed.encoding);
        self.send(store, &path, packed, replace, share, watch).await?;
        if replace {
            self.clean(store, &digest, &path, watch).await?;
        }
        share.whole();
        Ok(Some(sent))
    }

    /// Whether the remote has an object, in one encoding or another.
    async fn there(
        &self,
        store: &Store,
        digest: &Digest,
        bytes: u64,
        watch: Watch<'_>,
    ) -> Result<bool, Failure> {
        for encoding in Encoding::possible(bytes) {
            let path = layout::object(&store.prefix, digest, *encoding);
            let head = self.request(watch, self.limits.stall, || store.objects.head(&path)).await;
            match head {
                // A plain object of another size was written by who knows whom.
                Ok(meta) if *encoding == Encoding::Plain && meta.size != bytes => {
                    self.distrust(digest);
                    return Ok(false);
                }
                Ok(_) => return Ok(true),
                // Who may not list a bucket is refused what is not there; the upload tells.
                Err(Failure::Missing | Failure::Denied { .. }) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(false)
    }

    /// After a wrong object was replaced: removes the one of the other encoding, which may be the
    /// wrong one and would be found first.
    async fn clean(
        &self,
        store: &Store,
        digest: &Digest,
        written: &Path,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        for encoding in [Encoding::Plain, Encoding::Zstd] {
            let path = layout::object(&store.prefix, digest, encoding);
            if path == *written {
                continue;
            }
            let gone = self.request(watch, self.limits.stall, || store.objects.delete(&path)).await;
            match gone {
                Ok(()) | Err(Failure::Missing) => {}
                Err(failure) => return Err(failure),
            }
        }
        self.trust(digest);
        Ok(())
    }

    async fn send(
        &self,
        store: &Store,
        path: &Path,
        packed: Packed,
        replace: bool,
        share: &mut Share<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let bytes = packed.bytes;
        let content = Arc::new(packed.content);
        if bytes > self.limits.part {
            let source = Source { content: Arc::clone(&content), bytes };
            if let Some(parts) = &store.parts {
                return self.in_parts(&**parts, path, &source, share, watch).await;
            }
            if store.pieces {
                return self.in_pieces(store, path, &source, share, watch).await;
            }
        }
        // A file that is sent at once is mapped, not read: it may be larger than the memory.
        let whole = {
            let content = Arc::clone(&content);
            blocking(move || map(&content)).await?
        };
        self.put(store, path, whole, replace, watch).await
    }

    /// Puts a file at once: where there is none yet, or in its place.
    pub(super) async fn put(
        &self,
        store: &Store,
        path: &Path,
        content: Bytes,
        replace: bool,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let limit = self.limits.sending(content.len() as u64);
        let put = |mode: PutMode| {
            let options = PutOptions { mode, ..PutOptions::default() };
            store.objects.put_opts(path, PutPayload::from(content.clone()), options)
        };
        if !replace && self.creates(store) {
            match self.request(watch, limit, || put(PutMode::Create)).await {
                Ok(_) | Err(Failure::Exists) => return Ok(()),
                // An older server: what is there has the same content, or is a record as good.
                Err(Failure::Refused(_)) => self.never_creates(),
                Err(failure) => return Err(failure),
            }
        }
        self.request(watch, limit, || put(PutMode::Overwrite)).await.map(|_| ())
    }

    /// A large file in parts, of which each is tried again by itself.
    async fn in_parts(
        &self,
        store: &dyn MultipartStore,
        path: &Path,
        source: &Source,
        share: &mut Share<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let limit = self.limits.stall;
        let id = self.request(watch, limit, || store.create_multipart(path)).await?;
        let size = self.limits.part.max(source.bytes.div_ceil(PARTS));
        let count = source.bytes.div_ceil(size);
        let id = &id;
        let part = |index: u64| async move {
            let piece = source.piece(index * size, size).await?;
            let (limit, length) = (self.limits.sending(piece.len() as u64), piece.len() as u64);
            let put = || store.put_part(path, id, index as usize, piece.clone().into());
            let sent = self.request(watch, limit, put).await?;
            Ok::<_, Failure>((sent, length))
        };
        let all = async {
            let mut sent = stream::iter((0..count).map(part)).buffered(PARALLEL_PARTS);
            let (mut parts, mut moved) = (Vec::new(), 0);
            while let Some((part, length)) = sent.try_next().await? {
                parts.push(part);
                moved += length;
                share.at(moved, source.bytes);
            }
            let complete = || store.complete_multipart(path, id, parts.clone());
            self.request(watch, limit, complete).await
        };
        match all.await {
            Ok(_) => Ok(()),
            Err(failure) => {
                if !self.health.is_off() {
                    // Parts that nobody completes cost room until the bucket's rules remove them.
                    let abort = store.abort_multipart(path, id);
                    let _ = tokio::time::timeout(limit, abort).await;
                }
                Err(failure)
            }
        }
    }

    /// A large file piece by piece into a folder.
    async fn in_pieces(
        &self,
        store: &Store,
        path: &Path,
        source: &Source,
        share: &mut Share<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Failure> {
        let limit = self.limits.stall;
        let mut upload = self.request(watch, limit, || store.objects.put_multipart(path)).await?;
        let mut moved = 0;
        let written = async {
            while moved < source.bytes {
                let piece = source.piece(moved, self.limits.part).await?;
                moved += piece.len() as u64;
                upload.put_part(piece.into()).await.map_err(|error| Failure::of(&error))?;
                share.at(moved, source.bytes);
            }
            upload.complete().await.map_err(|error| Failure::of(&error))
        };
        match written.await {
            Ok(_) => Ok(()),
            Err(failure) => {
                let _ = upload.abort().await;
                Err(failure)
            }
        }
    }
}

/// What is sent, to be read in pieces.
struct Source {
    content: Arc<Content>,
    bytes: u64,
}

impl Source {
    async fn piece(&self, start: u64, size: u64) -> Result<Bytes, Failure> {
        let length = size.min(self.bytes - start);
        if let Content::Memory(bytes) = &*self.content {
            return Ok(bytes.slice(start as usize..(start + length) as usize));
        }
        let content = Arc::clone(&self.content);
        let work = move || {
            let mut piece = vec![0; length as usize];
            if let Content::File(file) = &*content {
                file.read_exact_at(&mut piece, start)
                    .at("read what is sent from", std::path::Path::new("the cache"))?;
            }
            Ok(Bytes::from(piece))
        };
        blocking(work).await
    }
}

/// All bytes of what is sent.
fn map(content: &Content) -> Result<Bytes, Failure> {
    match content {
        Content::Memory(bytes) => Ok(bytes.clone()),
        Content::File(file) => {
            // SAFETY: the file is an object, which nobody writes to, or a copy of our own; an
            // object that is damaged meanwhile is noticed by whoever loads it.
            let map = unsafe { memmap2::Mmap::map(file) }
                .at("map what is sent from", std::path::Path::new("the cache"))?;
            Ok(Bytes::from_owner(map))
        }
    }
}
