//! What is handed to `sbatch`: the options that say what a stage needs, and the job's script.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::group::Group;

/// What a stage asks of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// Processors; 0: as Slurm gives by default.
    pub cpus: f64,
    /// Bytes; 0: as Slurm gives by default.
    pub memory: u64,
    /// GPUs; a part of one is a whole one here, Slurm does not share them.
    pub gpus: f64,
    /// Nothing else may run on the node.
    pub alone: bool,
    /// The longest time of all attempts together, with the pauses between them.
    pub time: Option<Duration>,
}

/// Added to a stage's time: the job starts the program, looks up the cache and stores results.
const MARGIN: Duration = Duration::from_secs(5 * 60);

impl Ask {
    /// As options of `sbatch`.
    pub fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        if self.cpus > 0.0 {
            options.push(format!("--cpus-per-task={}", self.cpus.ceil().max(1.0)));
        }
        if self.memory > 0 {
            options.push(format!("--mem={}M", self.memory.div_ceil(1 << 20)));
        }
        if self.gpus > 0.0 {
            options.push(format!("--gres=gpu:{}", self.gpus.ceil()));
        }
        if self.alone {
            options.push("--exclusive".to_owned());
        }
        if let Some(time) = self.time {
            // Slurm counts in minutes.
            options.push(format!("--time={}", (time + MARGIN).as_secs().div_ceil(60)));
        }
        options
    }
}

/// What all jobs of a run have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOptions {
    /// This program, as nodes see it.
    pub program: PathBuf,
    /// Arguments after `run FILE STAGE`, the same for all jobs.
    pub arguments: Vec<String>,
    /// Shell lines before the program starts.
    pub setup: String,
    /// The user's options of `sbatch`; they come last and so win.
    pub sbatch: Vec<String>,
    /// Elements of an array that may run at a time.
    pub limit: Option<usize>,
}

/// A stage in a job's script.
#[derive(Clone, Debug)]
pub struct Task {
    /// The element's number.
    pub number: u32,
    /// The stage's id.
    pub stage: String,
    /// Where its events go; its other output goes beside, see [`errors`].
    pub events: PathBuf,
    /// Digest of its definition, which the job compares with the file that it reads.
    pub definition: String,
    /// Whether it runs even if it is up to date.
    pub forced: bool,
}

/// Where a job's other output goes.
pub fn errors(events: &Path) -> PathBuf {
    events.with_extension("err")
}

/// The script ends with this where the node does not see the cache.
pub const NO_CACHE: i32 = 97;

/// The script ends with this where the node does not see the program.
pub const NO_PROGRAM: i32 = 98;

/// A job's script. `marker`: a file in the cache that must be seen; `keys`: where jobs hand over what
/// they made.
pub fn script(
    options: &JobOptions,
    file: &Path,
    marker: &Path,
    keys: &Path,
    tasks: &[Task],
) -> String {
    let mut cases = String::new();
    for task in tasks {
        let number = if tasks.len() == 1 { "*".to_owned() } else { task.number.to_string() };
        cases.push_str(&format!(
            "{number}) stage={}; definition={}; force={}; events={}; errors={} ;;\n",
            quote(&task.stage),
            task.definition,
            if task.forced { "--force-target" } else { "" },
            quote(&task.events.to_string_lossy()),
            quote(&errors(&task.events).to_string_lossy()),
        ));
    }
    let [program, file, marker, keys] =
        [&options.program, file, marker, keys].map(|path: &Path| quote(&path.to_string_lossy()));
    let arguments: Vec<String> = options.arguments.iter().map(|argument| quote(argument)).collect();
    format!(
        "#!/bin/sh\n\
         [ -e {marker} ] || exit {NO_CACHE}\n\
         [ -x {program} ] || exit {NO_PROGRAM}\n\
         case \"${{SLURM_ARRAY_TASK_ID:-}}\" in\n{cases}esac\n\
         exec >> \"$events\" 2>> \"$errors\"\n\
         {}\n\
         exec {program} run {file} \"$stage\" --json --executor local --no-lock \\\n    \
         --hand-over {keys} --definition \"$definition\" $force {}\n",
        options.setup,
        arguments.join(" "),
    )
}

/// A word that the shell takes as it is.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Options of `sbatch` for a group; `limit`: elements of an array at a time.
pub fn options(
    group: &Group,
    pipeline: &str,
    token: &str,
    folder: &Path,
    numbers: &[u64],
    jobs: &JobOptions,
) -> Vec<String> {
    let mut options = vec![
        format!("--job-name=qpipe:{pipeline}:{}", group.name),
        format!("--comment={token}"),
        format!("--chdir={}", folder.display()),
        // The script says where its output goes.
        "--output=/dev/null".to_owned(),
        "--error=/dev/null".to_owned(),
    ];
    options.extend(group.array(jobs.limit).map(|array| format!("--array={array}")));
    if let Some(after) = group.dependency(numbers) {
        options.push(format!("--dependency={after}"));
        options.push("--kill-on-invalid-dep=yes".to_owned());
    }
    options.extend(group.options.iter().cloned());
    options.extend(jobs.sbatch.iter().cloned());
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_rounded_up() {
        assert_eq!(Ask::default().options(), [""; 0]);
        let ask = Ask {
            cpus: 1.5,
            memory: (1 << 30) + 1,
            gpus: 0.25,
            alone: true,
            time: Some(Duration::from_secs(90)),
        };
        let options =
            ["--cpus-per-task=2", "--mem=1025M", "--gres=gpu:1", "--exclusive", "--time=7"];
        assert_eq!(ask.options(), options);
    }

    #[test]
    fn a_script_finds_its_stage_and_quotes_everything() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let program = place("it's a program");
        let text = "#!/bin/sh\nprintf '%s|' \"$SETUP\" \"$@\"\necho bad >&2\n";
        crate::exec::test_program::write(&program, text);
        let options = JobOptions {
            program,
            arguments: vec!["--set".to_owned(), "params.x=$HOME 'y'".to_owned()],
            setup: "export SETUP=set".to_owned(),
            ..JobOptions::default()
        };
        let task = |number, stage: &str| Task {
            number,
            stage: stage.to_owned(),
            events: place(&format!("{number}.jsonl")),
            definition: "d".to_owned(),
            forced: number == 3,
        };
        let tasks = [task(0, "m[x]"), task(3, "m[$(touch no),1]")];
        let run = |script: &str, element: &str| {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", script]).env("SLURM_ARRAY_TASK_ID", element);
            shell.status().unwrap().code()
        };
        let text =
            script(&options, Path::new("/p q.toml"), &place("marker"), Path::new("/k"), &tasks);
        assert_eq!(run(&text, "3"), Some(NO_CACHE));
        std::fs::write(place("marker"), "").unwrap();
        assert_eq!(run(&text, "3"), Some(0));
        let said = std::fs::read_to_string(place("3.jsonl")).unwrap();
        assert_eq!(
            said,
            "set|run|/p q.toml|m[$(touch no),1]|--json|--executor|local|--no-lock|--hand-over|/k|\
             --definition|d|--force-target|--set|params.x=$HOME 'y'|"
        );
        assert_eq!(std::fs::read_to_string(place("3.err")).unwrap(), "bad\n");
        assert!(!place("0.jsonl").exists());
        let missing = JobOptions { program: place("gone"), ..options };
        let text =
            script(&missing, Path::new("/p"), &place("marker"), Path::new("/k"), &tasks[..1]);
        assert_eq!(run(&text, ""), Some(NO_PROGRAM));
    }
}
