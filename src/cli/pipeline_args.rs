//! Arguments of all commands that read a pipeline file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::watch::Seen;
use super::{Exit, fail};
use crate::cache::remote::{Remote, RemoteSpec};
use crate::cache::{self, Cache};
use crate::config::{self, Mistakes, Overrides, Pipeline, RemoteMode, Style};
use crate::exec::reporter::{github, terminal};
use crate::exec::{stderr, user_files};
use crate::plan::{Plan, UnknownTarget};

/// Which pipeline, and what to change in it.
#[derive(Clone, Debug, clap::Args)]
pub struct PipelineArgs {
    /// The pipeline file.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Overrides a value, such as `params.epochs=5` or `stages.qat.epochs=5`; the value is TOML,
    /// or plain text. May be given more than once.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Puts the tables below `[profiles.NAME]` over those of the file. May be given more than once;
    /// later ones win. Default: the names in $QPIPE_PROFILE, with commas between them.
    #[arg(long = "profile", value_name = "NAME")]
    pub profile: Vec<String>,
}

impl PipelineArgs {
    /// The arguments after the file, so that another process reads the same pipeline.
    pub fn arguments(&self) -> Vec<String> {
        let set = self.set.iter().map(|set| ["--set".to_owned(), set.clone()]);
        let profiles = self.profile.iter().map(|name| ["--profile".to_owned(), name.clone()]);
        set.chain(profiles).flatten().collect()
    }

    /// The folder that the file lies in.
    pub fn folder(&self) -> PathBuf {
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.unwrap_or(".".as_ref()).to_path_buf()
    }

    /// Reads the file; its mistakes are shown already where that fails.
    pub fn load(&self) -> Result<Pipeline, Exit> {
        let overrides = Overrides::from_process(&self.set, &self.profile);
        config::load(&self.file, &overrides).map_err(|mistakes| self.show(&mistakes))
    }

    /// Shows mistakes of the file.
    pub fn show(&self, mistakes: &Mistakes) -> Exit {
        stderr::write(mistakes.render(style()).as_bytes());
        for (name, line, message) in mistakes.lines().filter(|_| github::is_there()) {
            // An override's text has a name of its own, which is no file.
            let (file, line) = match Path::new(name).is_file() {
                true => (Path::new(name), line),
                false => (&*self.file, None),
            };
            stderr::line(format_args!("{}", github::error(file, line, &message)));
        }
        Exit::Usage
    }
}

/// Whether to do it again and again.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// Goes on after the end: waits until the pipeline file or an input changes, and does it again.
    /// Ctrl-C ends it, with exit code 0 while it waits and 130 in the middle of a run.
    #[arg(long)]
    pub watch: bool,
}

impl WatchArgs {
    /// Reads the pipeline; what it is read from is noted first.
    pub fn load(&self, pipeline: &PipelineArgs, seen: &mut Seen) -> Result<Pipeline, Exit> {
        if self.watch {
            seen.take([pipeline.file.clone()]);
        }
        pipeline.load().inspect_err(|_| {
            if self.watch {
                // Which inputs it has is not known then, or one is missing.
                seen.take_entries(pipeline.folder());
            }
        })
    }

    /// Notes the inputs of a plan, with the images of tables and the external data of models.
    pub fn inputs(&self, plan: &Plan<'_>, seen: &mut Seen) {
        if self.watch {
            seen.take(plan.pipeline().files.iter().cloned());
            seen.take(user_files(plan));
        }
    }
}

/// How mistakes are drawn on standard error.
fn style() -> Style {
    let stderr = console::Term::stderr();
    let width = terminal::columns(&stderr);
    Style { color: console::colors_enabled_stderr(), width, fit: stderr.is_term() }
}

/// Which of its stages.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SelectArgs {
    /// Stages to take, with all that they need; several are united. Default: all.
    ///
    /// A name (`qat`), a cell (`onnx[fp32,1]`), a pattern (`onnx[*,1]`, `ptq*`: `*` is any text and
    /// `?` any character, brackets are literal) or a kind (`kind:benchmark`); with `+` behind it
    /// (`qat+`), all that depends on it too.
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,

    /// Leaves these stages out, and all that needs them, whether they are up to date or not. A
    /// pattern as for TARGET; may be given more than once.
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
}

impl SelectArgs {
    /// Narrows a plan.
    pub fn apply(&self, plan: &mut Plan<'_>) -> Result<(), UnknownTarget> {
        plan.select_without(&self.targets, &self.exclude)
    }
}

/// Which remote cache.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoteArgs {
    /// A cache that is shared with other machines: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`,
    /// `https://…` or a folder. Default: $QPIPE_REMOTE, else `[remote]` of the pipeline file.
    #[arg(long, value_name = "URL")]
    remote: Option<String>,

    /// `read-write` or `read-only`. Default: $QPIPE_REMOTE_MODE, else `[remote]` of the pipeline
    /// file where its address counts, else `read-write`.
    #[arg(long, value_name = "MODE")]
    remote_mode: Option<String>,

    /// Uses no remote cache.
    #[arg(long, conflicts_with = "remote")]
    no_remote: bool,
}

impl RemoteArgs {
    /// The same for a job of a cluster; what the environment says goes there by itself.
    pub fn arguments(&self) -> Vec<String> {
        let pair = |name: &str, value: &Option<String>| {
            value.iter().flat_map(|value| [name.to_owned(), value.clone()]).collect::<Vec<_>>()
        };
        let mut arguments = pair("--remote", &self.remote);
        arguments.extend(pair("--remote-mode", &self.remote_mode));
        arguments.extend(self.no_remote.then(|| "--no-remote".to_owned()));
        arguments
    }

    /// The remote, if there is one; what is wrong with its address or mode is shown already.
    pub fn open(&self, pipeline: &Pipeline) -> Result<Option<Arc<Remote>>, Exit> {
        if self.no_remote {
            return Ok(None);
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (url, mode) = match self.remote.clone().or_else(|| variable("QPIPE_REMOTE")) {
            Some(url) => (url, RemoteMode::default()),
            None => match &pipeline.remote {
                Some(remote) => (remote.url.clone(), remote.mode),
                None => return Ok(None),
            },
        };
        let mode = match self.remote_mode.clone().or_else(|| variable("QPIPE_REMOTE_MODE")) {
            None => mode,
            Some(text) => match &*text {
                "read-write" => RemoteMode::ReadWrite,
                "read-only" => RemoteMode::ReadOnly,
                _ => {
                    stderr::line(format_args!("error: `{text}` is no mode of a remote cache"));
                    stderr::line(format_args!("  help: write read-write or read-only"));
                    return Err(Exit::Usage);
                }
            },
        };
        let spec = RemoteSpec::from_environment(&url, mode);
        let remote = Remote::open(&spec).map_err(|error| fail::show(&error, Exit::Usage))?;
        Ok(Some(Arc::new(remote)))
    }
}

/// Which cache.
#[derive(Clone, Debug, clap::Args)]
pub struct CacheArgs {
    /// The cache folder. Default: $QPIPE_CACHE, else the nearest marked folder `cache` above the
    /// pipeline file, else `.qpipe/cache` beside it.
    #[arg(long, value_name = "DIR", global = true)]
    pub cache: Option<PathBuf>,
}

impl CacheArgs {
    /// The cache's folder for a pipeline in `folder`.
    pub fn root(&self, folder: &Path) -> PathBuf {
        let variable = std::env::var_os(cache::VARIABLE).map(PathBuf::from);
        Cache::locate(self.cache.as_deref(), variable, folder)
    }
}
