//! The command line, the cache and crashes, on the built program.

mod cache;
mod crash;
mod project;
mod run;
mod worker;
