//! The command line, the cache and crashes, on the built program.

mod cache;
mod check;
mod crash;
mod init;
mod project;
mod run;
mod worker;
