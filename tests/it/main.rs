//! The command line, the cache and crashes, on the built program.

mod bundle;
mod cache;
mod check;
mod ci;
mod compose;
mod crash;
mod faults;
mod fuzz_corpus;
mod history;
mod init;
mod linking;
mod model;
mod parallel;
mod pipelines;
mod project;
mod remote;
mod run;
mod setup;
mod slurm;
mod slurm_cluster;
mod sweep;
mod training;
mod watch;
mod why;
mod worker;
mod workflow;
