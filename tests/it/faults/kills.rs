//! `kill -9` at any instant: of runners, of stages, of both, several runs at once.

use std::collections::HashSet;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use super::events::{children, stages, strays};
use super::random::{Random, full};
use crate::project::{Project, wait_for};

/// Ten stages, up to four at a time, with a folder, equal bytes from different stages, and one that
/// leaves a process behind in a session of its own.
const WIDE: &str = r#"
[params]
turn = "0"

[stages.root]
kind = "command"
run = "echo $TURN > $QPIPE_OUT_X; echo root >> $QPIPE_OUT_X"
env = { TURN = "${params.turn}" }
outputs = { x = "x" }

[stages.wide]
kind = "command"
matrix = { n = [1, 2, 3, 4] }
run = "cat $QPIPE_IN_X > $QPIPE_OUT_X && sleep 0.00$N && echo $N >> $QPIPE_OUT_X"
env = { N = "${matrix.n}" }
inputs = { x = "root" }
retries = { count = 2, backoff = "1 ms" }
outputs = { x = "x" }

[stages.same]
kind = "command"
matrix = { n = [1, 2] }
run = "echo $N > $TMPDIR/n && cat $QPIPE_IN_X > $TMPDIR/x && echo same > $QPIPE_OUT_X"
env = { N = "${matrix.n}" }
inputs = { x = "root" }
retries = { count = 2, backoff = "1 ms" }
outputs = { x = "x" }

[stages.left]
kind = "command"
run = "setsid sh -c 'sleep 600; echo bad >> $QPIPE_OUT_X' & cat $QPIPE_IN_X > $QPIPE_OUT_X && sleep 0.005"
inputs = { x = "root" }
retries = { count = 2, backoff = "1 ms" }
outputs = { x = "x" }

[stages.folder]
kind = "command"
run = "mkdir -p $QPIPE_OUT_F/below && cat $QPIPE_IN_A $QPIPE_IN_B > $QPIPE_OUT_F/below/one && sleep 0.003 && cat $QPIPE_IN_C > $QPIPE_OUT_F/two"
inputs = { a = "wide[1]", b = "wide[2]", c = "same[1]" }
outputs = { f = "folder" }

[stages.all]
kind = "command"
run = "cat $QPIPE_IN_F/below/one $QPIPE_IN_F/two $QPIPE_IN_C $QPIPE_IN_D $QPIPE_IN_L $QPIPE_IN_S > $QPIPE_OUT_X"
inputs = { f = "folder", c = "wide[3]", d = "wide[4]", l = "left", s = "same[2]" }
outputs = { x = "x" }
"#;

/// What the last stage makes of a turn.
fn whole(turn: usize) -> String {
    let root = format!("{turn}\nroot\n");
    let wide = |n: usize| format!("{root}{n}\n");
    format!("{}{}same\n{}{}{root}same\n", wide(1), wide(2), wide(3), wide(4))
}

/// A runner with its events in a file: what it said is there, however it ends.
struct Runner {
    child: Child,
    said: String,
    /// Stages that were done when it started.
    before: HashSet<String>,
    /// Whether one of its stages was killed here.
    hurt: bool,
}

/// Waits for a runner; one that does not end hangs.
fn end(runner: &mut Child) -> ExitStatus {
    for _ in 0..24_000 {
        if let Some(status) = runner.try_wait().unwrap() {
            return status;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("process {} hangs", runner.id());
}

struct Lane {
    project: Project,
    random: Random,
    turn: usize,
    /// Stages of this turn that a run said to be done.
    done: HashSet<String>,
    runs: usize,
    kills: usize,
    /// Kills of runners and of stages.
    hit: [usize; 2],
}

impl Lane {
    fn new(lane: u64) -> Self {
        let (project, random) = (Project::new(WIDE), Random::new(lane));
        // So that there is a cache.
        project.run(&["--set", "params.turn=first"]);
        Self { project, random, turn: 0, done: HashSet::new(), runs: 0, kills: 0, hit: [0; 2] }
    }

    fn start(&mut self) -> Runner {
        self.runs += 1;
        let said = format!("said.{}", self.runs);
        let file = |end: &str| {
            Stdio::from(std::fs::File::create(self.project.path(&format!("{said}{end}"))).unwrap())
        };
        let set = format!("params.turn={}", self.turn);
        let mut command = self.project.command(&["run", "p.toml", "--json", "-j4", "--set", &set]);
        let child = command.stdout(file("")).stderr(file(".err")).spawn().unwrap();
        Runner { child, said, before: self.done.clone(), hurt: false }
    }

    /// Kills something that belongs to a runner; nothing if it is over.
    fn kill(&mut self, runner: &mut Runner) {
        // Half of the kills look for a stage.
        let patient = self.random.one_in(2);
        let stages = loop {
            if runner.child.try_wait().unwrap().is_some() {
                return;
            }
            let stages = children(runner.child.id());
            if !stages.is_empty() || !patient {
                break stages;
            }
            std::thread::sleep(self.random.instant(4));
        };
        // A stage, a stage and its runner, or the runner alone.
        let what = if stages.is_empty() { 3 } else { self.random.below(6) };
        if what < 4 && !stages.is_empty() {
            let stage = *self.random.of(&stages);
            // SAFETY: no memory is passed; a process that is gone is no error here.
            let hit = unsafe { libc::kill(stage, libc::SIGKILL) } == 0;
            runner.hurt |= hit;
            self.kills += usize::from(hit);
            self.hit[1] += usize::from(hit);
        }
        if what > 2 {
            runner.child.kill().unwrap();
            self.kills += 1;
            self.hit[0] += 1;
        }
    }

    /// Some runs at once, and some kills among them.
    fn round(&mut self) {
        let count = 1 + self.random.below(3);
        let mut runners: Vec<Runner> = (0..count).map(|_| self.start()).collect();
        for _ in 0..2 * count {
            std::thread::sleep(self.random.instant(40));
            let chosen = self.random.below(runners.len());
            self.kill(&mut runners[chosen]);
        }
        let mut succeeded = false;
        for mut runner in runners {
            let status = end(&mut runner.child);
            succeeded |= status.success();
            let said = self.project.read(&runner.said);
            let errors = self.project.read(&format!("{}.err", runner.said));
            // What was reported as done is not done again.
            for stage in stages(&said, "started") {
                assert!(!runner.before.contains(&stage), "{stage} was lost: {said}{errors}");
            }
            self.done.extend(stages(&said, "finished"));
            self.done.extend(stages(&said, "cached"));
            let killed_stage = said.contains("was killed by signal 9 (SIGKILL)");
            let killed = status.code().is_none();
            assert!(status.success() || killed || killed_stage, "{status}: {said}{errors}");
            assert!(runner.hurt || !killed_stage, "killed by another run: {said}{errors}");
            for end in ["", ".err"] {
                std::fs::remove_file(self.project.path(&format!("{}{end}", runner.said))).unwrap();
            }
        }
        self.project.verify();
        if succeeded {
            self.turn += 1;
            self.done.clear();
        }
    }

    /// What must be true when the killing is over.
    fn finish(&mut self) {
        let mut last = self.start();
        assert!(end(&mut last.child).success());
        let said = self.project.read(&last.said);
        assert!(stages(&said, "waiting").is_empty(), "nobody is left to wait for: {said}");
        assert_eq!(self.project.artifact("all/x"), whole(self.turn));
        for turn in 0..self.turn {
            // All turns before are still there, whole.
            if turn % 10 == 0 {
                let set = format!("params.turn={turn}");
                let said = self.project.run(&["--json", "--set", &set]);
                assert!(stages(&said.stdout, "started").is_empty(), "{said:?}");
                assert_eq!(self.project.artifact("all/x"), whole(turn));
            }
        }
        self.project.verify();
        let left = std::fs::read_dir(self.project.path("cache/scratch")).unwrap().count();
        assert_eq!(left, 0, "folders of killed attempts are removed");
        wait_for("the end of all that killed runs left", || strays(&self.project).is_empty());
    }
}

#[test]
fn a_thousand_kills_lose_nothing_and_leave_nothing() {
    let wanted = if full() { 1000 } else { KILLS };
    let lanes: Vec<_> = (0..2)
        .map(|lane| {
            std::thread::spawn(move || {
                let mut lane = Lane::new(lane);
                while lane.kills < wanted / 2 {
                    lane.round();
                }
                lane.finish();
                (lane.kills, lane.hit, lane.runs, lane.turn)
            })
        })
        .collect();
    for lane in lanes {
        let (kills, [runners, stages], runs, turns) = lane.join().unwrap();
        println!(
            "{kills} kills ({runners} of runners, {stages} of stages), {runs} runs, {turns} turns"
        );
        assert!(runners > kills / 4 && stages > kills / 20, "{runners} and {stages} of {kills}");
    }
}

/// In every run of the tests; `QPIPE_FAULTS=full` makes it a thousand.
const KILLS: usize = 200;
