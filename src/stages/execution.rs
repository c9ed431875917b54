//! How a stage is run: keys that every `[stages.NAME]` table may have.
//!
//! They decide when and where a stage runs, never what comes of it, so they are no part of its cache key.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::contract::Problem;
use super::quantity;

/// The keys, as they stand in the file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecutionTable {
    /// What it takes of the machine while it runs; stages that together want more than there is wait
    /// for each other. Default: what its kind wants.
    #[serde(default)]
    pub resources: Option<ResourcesTable>,
    /// It is ended and fails when it runs longer; each attempt has this time.
    #[serde(default)]
    pub timeout: Option<TimeText>,
    /// Further attempts after a failure.
    #[serde(default)]
    pub retries: Option<RetriesTable>,
    /// Nothing else runs on the machine meanwhile, of all runs of the same user: runs of other users are not seen. Default: true
    /// for `benchmark`, `search` and the `build-engine` of backend `tensorrt`, else false.
    #[serde(default)]
    pub exclusive: Option<bool>,
}

impl ExecutionTable {
    /// Whether a key of a stage's table is one of these.
    pub fn has(key: &str) -> bool {
        matches!(key, "resources" | "timeout" | "retries" | "exclusive")
    }
}

/// What a stage takes of the machine while it runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Resources")]
pub struct ResourcesTable {
    /// Processors; may be a fraction.
    #[serde(default)]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub cpus: Option<f64>,
    /// Memory.
    #[serde(default)]
    pub memory: Option<SizeText>,
    /// GPUs: a whole number, or a fraction below 1 of one that is shared; 0: none, whatever `--gpus` names. Default: the stage sees all that the run may use.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub gpus: Option<f64>,
}

/// An amount of memory.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Memory")]
pub enum SizeText {
    /// Bytes.
    Bytes(#[schemars(range(min = 1))] u64),
    /// A number and a unit (kB, MB, GB, TB, KiB, MiB, GiB, TiB), such as `"8 GB"`.
    Text(String),
}

/// A time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Time")]
pub enum TimeText {
    /// Seconds.
    Seconds(#[schemars(extend("exclusiveMinimum" = 0))] f64),
    /// Numbers and units (ms, s, min, h, d), such as `"90 s"` or `"1 h 30 min"`.
    Text(String),
}

/// Further attempts after a failure.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Retries")]
pub enum RetriesTable {
    /// How many.
    Count(#[schemars(range(max = 100))] u32),
    /// How many, and how long to wait before them.
    Backoff(RetriesWithBackoff),
}

/// Further attempts with a time between them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesWithBackoff {
    /// How many.
    #[schemars(range(max = 100))]
    pub count: u32,
    /// Time before the first of them; it doubles with each. Default: 1 s.
    #[serde(default)]
    pub backoff: Option<TimeText>,
}

/// How a stage is run; what is `None` is left to its kind (see [`super::contract::Demand`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Execution {
    /// What it takes of the machine while it runs.
    pub resources: Option<Resources>,
    /// The longest time of an attempt.
    pub timeout: Option<Duration>,
    /// Further attempts after a failure.
    pub retries: Retries,
    /// Whether nothing else may run on the machine meanwhile.
    pub exclusive: Option<bool>,
}

/// What a stage takes of the machine while it runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    /// Processors, above 0.
    pub cpus: Option<f64>,
    /// Bytes, above 0.
    pub memory: Option<u64>,
    /// GPUs: a whole number, or a fraction below 1.
    pub gpus: Option<f64>,
}

/// Further attempts after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// How many.
    pub count: u32,
    /// Time before the first of them; it doubles with each.
    pub backoff: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { count: 0, backoff: Duration::from_secs(1) }
    }
}

impl Retries {
    /// The time before attempt `attempt`, from 1 for the first that follows a failure.
    pub fn pause(&self, attempt: u32) -> Duration {
        self.backoff
            .saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX))
    }
}

impl Execution {
    /// Reads texts and units; mistakes are added to `problems`, their keys below the stage's table.
    pub fn read(table: &ExecutionTable, problems: &mut Vec<Problem>) -> Self {
        let time = |field: &str, text: &TimeText| match text {
            TimeText::Text(text) => quantity::time(field, text),
            TimeText::Seconds(seconds) => quantity::seconds(*seconds)
                .map_err(|why| Problem::at(field, format!("{seconds} seconds: {why}"))),
        };
        let timeout = table.timeout.as_ref().map(|text| time("timeout", text));
        let timeout = timeout.and_then(|time| told(time, problems));
        let mut retries = Retries::default();
        match &table.retries {
            Some(RetriesTable::Count(count)) => retries.count = *count,
            Some(RetriesTable::Backoff(given)) => {
                retries.count = given.count;
                let backoff = given.backoff.as_ref().map(|text| time("retries.backoff", text));
                let backoff = backoff.and_then(|time| told(time, problems));
                retries.backoff = backoff.unwrap_or(retries.backoff);
            }
            None => {}
        }
        let resources = table.resources.as_ref().map(|given| Resources {
            cpus: given.cpus,
            memory: match &given.memory {
                Some(SizeText::Bytes(bytes)) => Some(*bytes),
                Some(SizeText::Text(text)) => {
                    told(quantity::bytes("resources.memory", text), problems)
                }
                None => None,
            },
            gpus: given.gpus,
        });
        let gpus = resources.as_ref().and_then(|resources| resources.gpus);
        if let Some(gpus) = gpus.filter(|gpus| *gpus > 1.0 && gpus.fract() != 0.0) {
            problems.push(
                Problem::at("resources.gpus", format!("{gpus} GPUs cannot be handed out"))
                    .label("expected a whole number, or a fraction below 1")
                    .help(
                        "a fraction shares one GPU with other stages; whole ones are a stage's own",
                    ),
            );
        }
        Self { resources, timeout, retries, exclusive: table.exclusive }
    }
}

/// The value; the problem, if it is one, is put with the others.
fn told<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Execution, Vec<Problem>) {
        let table: ExecutionTable = toml::from_str(text).unwrap();
        let mut problems = Vec::new();
        let execution = Execution::read(&table, &mut problems);
        (execution, problems)
    }

    #[test]
    fn all_forms_are_read() {
        let (execution, problems) = read(
            "resources = { cpus = 0.5, memory = '8 GB', gpus = 0.25 }\ntimeout = '1 h 30 min'\n\
             retries = { count = 2, backoff = '10 s' }\nexclusive = true",
        );
        assert_eq!(problems, []);
        let resources =
            Resources { cpus: Some(0.5), memory: Some(8_000_000_000), gpus: Some(0.25) };
        assert_eq!(execution.resources, Some(resources));
        assert_eq!(execution.timeout, Some(Duration::from_secs(5_400)));
        assert_eq!(execution.retries, Retries { count: 2, backoff: Duration::from_secs(10) });
        assert_eq!(execution.exclusive, Some(true));
        let (execution, problems) =
            read("resources = { cpus = 4, memory = 4096, gpus = 2 }\ntimeout = 90\nretries = 3");
        assert_eq!(problems, []);
        let resources = Resources { cpus: Some(4.0), memory: Some(4_096), gpus: Some(2.0) };
        assert_eq!(execution.resources, Some(resources));
        assert_eq!(execution.timeout, Some(Duration::from_secs(90)));
        assert_eq!(execution.retries, Retries { count: 3, backoff: Duration::from_secs(1) });
        assert_eq!(read("").0, Execution::default());
    }

    #[test]
    fn pauses_double_and_do_not_overflow() {
        let retries = Retries { count: 100, backoff: Duration::from_secs(10) };
        assert_eq!(retries.pause(1), Duration::from_secs(10));
        assert_eq!(retries.pause(3), Duration::from_secs(40));
        assert!(retries.pause(100) >= retries.pause(32));
    }

    #[test]
    fn the_table_of_names_is_the_structs() {
        let schema = schemars::schema_for!(ExecutionTable);
        let names = schema.get("properties").and_then(|names| names.as_object()).unwrap();
        assert_eq!(names.len(), 4);
        assert!(names.keys().all(|name| ExecutionTable::has(name)));
    }
}
