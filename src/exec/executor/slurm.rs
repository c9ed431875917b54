//! Stages as jobs of a Slurm cluster.
//!
//! ```text
//! submitter                                        a job, on a node
//! ─────────                                        ────────────────
//! which stages are not up to date                  qpipe run FILE STAGE --executor local --json
//! group   cells into array jobs, dependencies        its producers' keys are handed over as files
//! submit  sbatch, noted in the state file first      runs the stage, or finds it in the cache
//! follow  squeue, and the jobs' events  ◀────────    events to a file, its key handed over
//! ```
//!
//! **Jobs.** A stage that is not known to be up to date is a job; Slurm holds it until the jobs of its
//! producers have succeeded and cancels it when one fails. A job is this same program, so a stage whose
//! inputs came out as before is found in the cache and the job ends at once.
//!
//! **Arrays.** An element of an array has no dependency of its own. Cells of a matrix stage are put in
//! one array where they ask for the same resources and need the same jobs, or where each needs the
//! element of another array that has its own number (`aftercorr`); else in several arrays. The number
//! of an element is the cell's place in its stage, whatever else is up to date.
//!
//! **State.** What was submitted stands in `CACHE/slurm/PIPELINE/state.json`, each job first without its
//! number. Should the submitter die in between, the job is found by its comment. The lock that a
//! submitter holds meanwhile is inherited by `sbatch`, so the next one begins after it has ended.
//!
//! **Attaching.** A run takes over the jobs that are pending or running where the stage's definition and
//! options are the same and its producers are up to date or taken over too; others of the same stages
//! are cancelled.

mod client;
mod cluster;
mod definition;
mod error;
mod events;
mod folder;
mod follow;
mod group;
mod job;
mod keys;
mod outcome;
mod script;
mod state;
mod submit;

pub use cluster::{Cluster, SlurmOptions, cancel};
pub use definition::definitions;
pub use error::SlurmError;
pub use keys::HandOver;
