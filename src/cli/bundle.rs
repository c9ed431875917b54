//! `qpipe bundle` and `qpipe unbundle`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use indicatif::BinaryBytes;

use super::pipeline_args::CacheArgs;
use super::{Exit, PipelineArgs, fail};
use crate::cache::bundle::{self, BundleError, Packing};
use crate::cache::{Cache, CacheError, LockFile, Lookup, files_below};
use crate::config::Pipeline;
use crate::exec::{shell, stderr, stdout, user_files};
use crate::plan::Plan;
use crate::stages::quantity;

/// Packs a pipeline, its lock file and what its stages came to into one file.
///
/// A colleague unpacks it with `qpipe unbundle`; `qpipe run` finds everything done there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pipeline: PipelineArgs,

    #[command(flatten)]
    cache: CacheArgs,

    /// The bundle. Default: the pipeline file's name with `.qpipe`, here.
    #[arg(long, short, value_name = "NAME.qpipe")]
    output: Option<PathBuf>,

    /// Packs what these stages came to, and all that they need; patterns as for `qpipe run`.
    /// Default: all stages.
    #[arg(long, value_name = "PATTERN", num_args = 1..)]
    stages: Vec<String>,

    /// Packs the files and folders that stages read too, as far as they lie in the pipeline's folder.
    #[arg(long)]
    inputs: bool,

    /// Leaves out inputs that are larger than this.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = size)]
    max_input: u64,
}

/// Unpacks a bundle: its files into a folder, its results into the cache.
#[derive(Debug, clap::Args)]
#[command(after_help = UNBUNDLE_EXAMPLES)]
pub struct UnbundleArgs {
    /// The bundle.
    #[arg(value_name = "NAME.qpipe")]
    bundle: PathBuf,

    /// The folder for the pipeline. Default: the bundle's name without its ending, here.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,

    #[command(flatten)]
    cache: CacheArgs,

    /// Replaces files that stand there and are others.
    #[arg(long)]
    force: bool,
}

/// Examples, for `--help`.
const EXAMPLES: &str = "\
Examples:
  qpipe bundle p.toml                         # p.qpipe
  qpipe bundle p.toml -o study.qpipe --inputs
  qpipe bundle p.toml --stages \"engine[*]\" --inputs --max-input 1GB";

/// Examples, for `--help`.
const UNBUNDLE_EXAMPLES: &str = "\
Examples:
  qpipe unbundle study.qpipe                  # into the folder study
  qpipe unbundle study.qpipe there --force";

fn size(text: &str) -> Result<u64, String> {
    quantity::bytes("", text).map_err(|problem| problem.message)
}

/// Packs.
pub fn pack(args: &Args) -> Exit {
    let pipeline = match args.pipeline.load() {
        Ok(pipeline) => pipeline,
        Err(exit) => return exit,
    };
    packed(args, &pipeline).unwrap_or_else(|error| shown(&error))
}

fn packed(args: &Args, pipeline: &Pipeline) -> Result<Exit, BundleError> {
    let mut plan = Plan::new(pipeline);
    if let Err(error) = plan.select(&args.stages) {
        return Ok(fail::show(&error, Exit::Usage));
    }
    let lock_path = pipeline.lock_file();
    let Some(lock) = LockFile::read(&lock_path)? else {
        stderr::line(format_args!(
            "error: {} is not there: nothing was computed yet",
            lock_path.display()
        ));
        stderr::line(format_args!(
            "  help: `qpipe run` writes it; a sweep has none and cannot be packed"
        ));
        return Ok(Exit::Usage);
    };
    let base = base(&pipeline.files);
    let cache = Cache::open(&args.cache.root(&pipeline.folder))?;
    let _hold = cache.share()?;
    let name = |path: &Path| Some(normal(path).strip_prefix(&base).ok()?.to_str()?.to_owned());
    let mut packing = Packing::new(&name(&pipeline.file).unwrap_or_default());
    for file in pipeline.files.iter().chain([&lock_path]) {
        let packs = match name(file) {
            Some(name) => packing.file(&name, file)?,
            None => false,
        };
        if !packs {
            stderr::line(format_args!(
                "error: {} cannot be packed: its path would be refused",
                file.display()
            ));
            return Ok(Exit::Usage);
        }
    }
    for index in plan.order() {
        let id = &plan.stage(index).id;
        let Some(locked) = lock.stages.get(id) else {
            stderr::line(format_args!("{id}: not packed, it is not in the lock file"));
            continue;
        };
        match cache.lookup(&locked.key)? {
            Lookup::Hit(record) => packing.record(&cache, *record)?,
            found => {
                let record = match found {
                    Lookup::Damaged(_) => cache.record_of(&locked.key)?,
                    _ => None,
                };
                match record.filter(|record| record.outputs.values().all(|it| cache.has(it))) {
                    // Packing reads it, and says what is damaged.
                    Some(record) => packing.record(&cache, record)?,
                    None => stderr::line(format_args!(
                        "{id}: not packed, its result is not in this cache"
                    )),
                }
            }
        }
    }
    for path in user_files(&plan) {
        match input(args, &path, name(&path).as_deref())? {
            Ok(files) => {
                for (name, file) in files {
                    if !packing.file(&name, &file)? {
                        stderr::line(format_args!(
                            "{}: not packed, its path would be refused",
                            file.display()
                        ));
                    }
                }
            }
            Err(why) => stderr::line(format_args!("{}: not packed, {why}", path.display())),
        }
    }
    let output = args.output.clone().unwrap_or_else(|| {
        PathBuf::from(pipeline.file.file_name().unwrap_or_default()).with_extension("qpipe")
    });
    let packed = packing.write(&cache, &output)?;
    let of =
        |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    stdout::line(format_args!(
        "{}: {}, {}, {}; {} of {}",
        output.display(),
        of(packed.files, "file"),
        of(packed.records, "result"),
        of(packed.objects, "object"),
        BinaryBytes(packed.packed),
        BinaryBytes(packed.bytes)
    ));
    Ok(Exit::Success)
}

/// The files of an input by their names in the bundle, or why they are not packed.
fn input(
    args: &Args,
    path: &Path,
    name: Option<&str>,
) -> Result<Result<BTreeMap<String, PathBuf>, String>, CacheError> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(Err("it does not lie in the pipeline's folder".to_owned()));
    };
    if !args.inputs {
        return Ok(Err("inputs are packed with --inputs".to_owned()));
    }
    let found = files_below(path)?;
    let bytes: u64 = found.iter().map(|(_, _, bytes)| bytes).sum();
    if bytes > args.max_input {
        let limit = BinaryBytes(args.max_input);
        return Ok(Err(format!("{} is more than --max-input {limit}", BinaryBytes(bytes))));
    }
    let named = found.into_iter().map(|(relative, path, _)| {
        let name = if relative.is_empty() { name.to_owned() } else { format!("{name}/{relative}") };
        (name, path)
    });
    Ok(Ok(named.collect()))
}

/// The folder that all files lie in.
fn base(files: &[PathBuf]) -> PathBuf {
    let mut folders = files.iter().map(|file| {
        let file = normal(file);
        file.parent().unwrap_or(Path::new("/")).to_path_buf()
    });
    let first = folders.next().unwrap_or_default();
    folders.fold(first, |base, folder| {
        let shared = base.components().zip(folder.components());
        shared.take_while(|(one, other)| one == other).map(|(one, _)| one).collect()
    })
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Unpacks.
pub fn unpack(args: &UnbundleArgs) -> Exit {
    let folder = args.folder.clone().unwrap_or_else(|| {
        let stem = args.bundle.file_stem().unwrap_or_default();
        PathBuf::from(stem)
    });
    let absolute = std::path::absolute(&folder).unwrap_or_else(|_| folder.clone());
    let open = |beside: &Path| Cache::open(&args.cache.root(beside));
    match bundle::unpack(&args.bundle, &folder, open, args.force) {
        Ok(unpacked) => {
            stdout::line(format_args!(
                "{} files, {} results; {} were in the cache already",
                unpacked.files, unpacked.records, unpacked.known
            ));
            let shown = folder
                .join(unpacked.pipeline.strip_prefix(&absolute).unwrap_or(&unpacked.pipeline));
            let shown = shell::word(&shown.to_string_lossy());
            stdout::line(format_args!("now: qpipe run {shown}"));
            Exit::Success
        }
        Err(error) => shown(&error),
    }
}

fn shown(error: &BundleError) -> Exit {
    let exit = match error {
        BundleError::Cache(error) => Exit::from(error),
        BundleError::Broken { .. } | BundleError::There { .. } | BundleError::Changed { .. } => {
            Exit::Blocked
        }
        BundleError::Missing { .. } => Exit::Usage,
        BundleError::Room { .. } => Exit::Machine,
    };
    fail::show(error, exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_holds_what_is_extended() {
        let of = |files: &[&str]| base(&files.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["/a/b/p.toml"]), Path::new("/a/b"));
        assert_eq!(of(&["/a/b/p.toml", "/a/b/../base.toml"]), Path::new("/a"));
        assert_eq!(of(&["/a/b/p.toml", "/a/bc/base.toml", "/a/b/c/x.toml"]), Path::new("/a"));
    }
}
