//! `qpipe cache push` and `qpipe cache pull`.

use std::cell::Cell;
use std::sync::Arc;

use indicatif::BinaryBytes;

use super::cache::{count, shown};
use super::pipeline_args::{CacheArgs, RemoteArgs};
use super::{Exit, PipelineArgs};
use crate::cache::remote::{Remote, RemoteEvent};
use crate::cache::{Cache, CacheError, Digest, LockFile, Lookup};
use crate::config::Pipeline;
use crate::exec::{stderr, stdout};

/// Of which pipeline, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    remote: RemoteArgs,
}

/// What both need.
struct Transfer {
    cache: Cache,
    remote: Arc<Remote>,
    /// Stage id and key of what the lock file names.
    stages: Vec<(String, Digest)>,
    warned: Cell<usize>,
}

impl Transfer {
    fn new(args: &Args, cache: &CacheArgs) -> Result<Self, Exit> {
        let pipeline = args.pipeline.load()?;
        let Some(remote) = args.remote.open(&pipeline)? else {
            stderr::line(format_args!("error: no remote cache is named"));
            stderr::line(format_args!(
                "  help: --remote URL, $QPIPE_REMOTE, or a table [remote] in the pipeline file"
            ));
            return Err(Exit::Usage);
        };
        let cache = Cache::open(&cache.root(&pipeline.folder)).map_err(shown)?;
        let stages = Self::named(&pipeline).map_err(shown)?;
        Ok(Self { cache, remote, stages, warned: Cell::new(0) })
    }

    fn named(pipeline: &Pipeline) -> Result<Vec<(String, Digest)>, CacheError> {
        let path = pipeline.lock_file();
        let Some(lock) = LockFile::read(&path)? else {
            return Err(CacheError::LockFileMissing { path });
        };
        Ok(lock.stages.into_iter().map(|(id, stage)| (id, stage.key)).collect())
    }

    fn watch(&self, event: RemoteEvent<'_>) {
        if let RemoteEvent::Warning(message) = event {
            self.warned.set(self.warned.get() + 1);
            stderr::line(format_args!("warning: {message}"));
        }
    }

    /// Whether all went well.
    fn exit(&self) -> Exit {
        if self.warned.get() > 0 { Exit::Machine } else { Exit::Success }
    }
}

fn block<T>(future: impl Future<Output = T>) -> Result<T, Exit> {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(error) => {
            stderr::line(format_args!("error: cannot start a runtime: {error}"));
            Err(Exit::Machine)
        }
    }
}

/// Puts what a pipeline's lock file names into the remote cache.
pub fn push(args: &Args, cache: &CacheArgs) -> Exit {
    let transfer = match Transfer::new(args, cache) {
        Ok(transfer) => transfer,
        Err(exit) => return exit,
    };
    if !transfer.remote.writes() {
        stderr::line(format_args!(
            "error: the remote cache {} is read-only here",
            transfer.remote.url()
        ));
        stderr::line(format_args!("  help: --remote-mode read-write"));
        return Exit::Usage;
    }
    block(push_all(&transfer)).and_then(|done| done.map_err(shown)).unwrap_or_else(|exit| exit)
}

async fn push_all(transfer: &Transfer) -> Result<Exit, CacheError> {
    let (mut results, mut objects, mut bytes, mut missing) = (0, 0, 0, 0);
    let _hold = transfer.cache.share()?;
    for (id, key) in &transfer.stages {
        let Lookup::Hit(record) = transfer.cache.lookup(key)? else {
            stderr::line(format_args!("{id}: not in this cache"));
            missing += 1;
            continue;
        };
        let watch = |event: RemoteEvent<'_>| transfer.watch(event);
        if let Some(pushed) = transfer.remote.push(&transfer.cache, &record, &watch).await {
            results += 1;
            objects += pushed.objects;
            bytes += pushed.bytes;
        }
    }
    let (results, objects) = (count(results, "result"), count(objects, "new object"));
    stdout::line(format_args!(
        "{results} in {}: {objects}, {} sent",
        transfer.remote.url(),
        BinaryBytes(bytes)
    ));
    if missing > 0 {
        stderr::line(format_args!("  help: `qpipe run` makes what is not in this cache"));
    }
    Ok(transfer.exit())
}

/// Takes what a pipeline's lock file names from the remote cache.
pub fn pull(args: &Args, cache: &CacheArgs) -> Exit {
    let transfer = match Transfer::new(args, cache) {
        Ok(transfer) => transfer,
        Err(exit) => return exit,
    };
    block(pull_all(&transfer)).and_then(|done| done.map_err(shown)).unwrap_or_else(|exit| exit)
}

async fn pull_all(transfer: &Transfer) -> Result<Exit, CacheError> {
    let (mut pulled, mut there, mut missing) = (0, 0, 0);
    for (id, key) in &transfer.stages {
        let found = {
            let _hold = transfer.cache.share()?;
            matches!(transfer.cache.lookup(key)?, Lookup::Hit(_))
        };
        if found {
            there += 1;
            continue;
        }
        let watch = |event: RemoteEvent<'_>| transfer.watch(event);
        match transfer.remote.pull(&transfer.cache, key, &watch).await? {
            Some(_) => pulled += 1,
            None => {
                stderr::line(format_args!("{id}: not in the remote cache"));
                missing += 1;
            }
        }
    }
    transfer.cache.flush()?;
    let pulled = count(pulled, "result");
    stdout::line(format_args!(
        "{pulled} pulled, {there} here already, {missing} not in {}",
        transfer.remote.url()
    ));
    Ok(transfer.exit())
}
