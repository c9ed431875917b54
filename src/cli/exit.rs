//! Exit codes: a script can tell whose fault a failure is.

use std::process::ExitCode;

use crate::task::Blame;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Success = 0,
    /// A stage failed.
    StageFailed = 1,
    /// The command line or the pipeline file is wrong.
    Usage = 2,
    /// The machine lacks something: a component, the worker, room on the disk.
    Machine = 3,
    /// Something is in the way: the cache is locked by another run, an input changed meanwhile, a
    /// lock file would change under `--locked`, the cache is damaged.
    Blocked = 4,
    /// A guard of `qpipe ci` is broken.
    GuardBroken = 5,
    /// There is something to look at, and `--exit-code` asked for that: a run would do something, models differ, a linter found something.
    Pending = 10,
    /// The program itself is at fault.
    Bug = 70,
    /// Interrupted by a signal.
    Interrupted = 130,
}

/// The exit codes, for `--help`.
pub const HELP: &str = "\
Exit codes:
    0  all is well
    1  a stage failed
    2  wrong command line or pipeline file
    3  the machine lacks something that a stage needs
    4  locked by another run, changed meanwhile, or damaged
    5  a guard of `qpipe ci` is broken
   10  with --exit-code: a run would do something (plan, status, why), models differ or something is found (model diff and lint)
   70  a bug in qpipe
  130  interrupted";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Blame> for Exit {
    /// The exit code of a failed stage.
    fn from(blame: Blame) -> Self {
        match blame {
            Blame::User => Self::StageFailed,
            Blame::Machine => Self::Machine,
            Blame::Bug => Self::Bug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_lists_each_code_once() {
        let all = [
            Exit::Success,
            Exit::StageFailed,
            Exit::Usage,
            Exit::Machine,
            Exit::Blocked,
            Exit::GuardBroken,
            Exit::Pending,
            Exit::Bug,
            Exit::Interrupted,
        ];
        let listed: Vec<u8> = HELP
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(listed, all.map(|exit| exit as u8));
    }
}
