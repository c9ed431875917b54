//! Stages as processes: where the worker is, how it is started and ended.

pub mod worker;
