//! The artifacts of a pipeline under readable names: links into the cache.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::{At, Result};
use super::keys::Done;
use crate::cache::{ActionRecord, Cache, Digest, boot, files, plain_name};

/// Where the artifacts of a pipeline are shown.
pub fn folder(cache: &Cache, pipeline: &str) -> PathBuf {
    cache.place("view").join(plain_name(pipeline))
}

/// Brings `view/PIPELINE/STAGE/FILE` up to date for the stages that are done.
///
/// `results` names all that is to be shown. When all of it is, `view/.PIPELINE.shown` says so, and the
/// links are not looked at again until something else is shown or the machine is started anew. It is
/// gone while links change: a run that is killed before it gets here has shown nothing of its own.
pub fn update(cache: &Cache, pipeline: &str, done: &Done, results: &Digest) -> Result<()> {
    let root = folder(cache, pipeline);
    let shown = cache.place("view").join(format!(".{}.shown", plain_name(pipeline)));
    // The digit is raised with any change of the names.
    let text = format!("{} {results} 2\n", boot());
    if root.is_dir() && files::read(&shown)?.is_some_and(|before| before == text.as_bytes()) {
        return Ok(());
    }
    files::remove(&shown)?;
    for (id, record) in done {
        let stage = root.join(plain_name(id));
        if !is_current(cache, &stage, record) {
            link(cache, &stage, record)?;
        }
    }
    if shown.exists() {
        // Another run has shown something else meanwhile: the next one looks at all links.
        return Ok(files::remove(&shown)?);
    }
    Ok(files::publish_unflushed(&shown, text.as_bytes())?)
}

fn is_current(cache: &Cache, stage: &Path, record: &ActionRecord) -> bool {
    record.outputs.values().all(|output| {
        let wanted = target(cache, stage, &output.file, &cache.output(output));
        std::fs::read_link(stage.join(&output.file)).is_ok_and(|found| found == wanted)
    })
}

fn link(cache: &Cache, stage: &Path, record: &ActionRecord) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for output in record.outputs.values() {
        let path = stage.join(&output.file);
        let folder = path.parent().unwrap_or(stage);
        std::fs::create_dir_all(folder).at("create", folder)?;
        let temporary = folder.join(format!(".{}.tmp", files::unique()));
        let target = target(cache, stage, &output.file, &cache.output(output));
        std::os::unix::fs::symlink(target, &temporary)
            .and_then(|()| std::fs::rename(&temporary, &path))
            .at("link", &path)?;
        wanted.extend(Path::new(&output.file).components().next().map(|first| stage.join(first)));
    }
    // Files of an earlier form of the stage; another run may be linking the same just now.
    for path in files::list(stage)? {
        if !wanted.contains(&path) && (!files::is_temporary(&path) || files::is_leftover(&path)) {
            files::remove(&path)?;
        }
    }
    Ok(())
}

/// The object's path from the link's folder, so that the cache may be moved.
fn target(cache: &Cache, stage: &Path, file: &str, object: &Path) -> PathBuf {
    let root = cache.root();
    let below = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_path_buf();
    let depth = below(stage).components().count() + Path::new(file).components().count() - 1;
    let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
    target.push(below(object));
    target
}
