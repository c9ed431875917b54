//! Whether other programs used the processors of a benchmark meanwhile, or the host took them from this virtual machine.

use std::time::{Duration, Instant};

/// Share of the processors' time above which figures are of a machine that was not free.
pub const NOTABLE: f64 = 0.1;

/// Least time whose share means something: the system counts in hundredths of a second.
const LEAST: Duration = Duration::from_millis(500);

/// What the processors did so far.
#[derive(Clone, Copy, Debug)]
struct Spent {
    /// By whatever program, and by the host.
    all: Duration,
    /// By this process.
    own: Duration,
}

/// A watch over some processors.
pub struct Others<'a> {
    cpus: &'a [usize],
    start: Instant,
    spent: Option<Spent>,
}

impl<'a> Others<'a> {
    /// Begins to watch.
    pub fn begin(cpus: &'a [usize]) -> Self {
        Self { cpus, start: Instant::now(), spent: spent(cpus) }
    }

    /// The share of the processors' time that was not this process's, 0…1; `None`: too short a time, or a system that does not tell.
    pub fn share(&self) -> Option<f64> {
        let (elapsed, now) = (self.start.elapsed(), spent(self.cpus)?);
        share(self.spent?, now, elapsed, self.cpus.len())
    }
}

fn share(before: Spent, now: Spent, elapsed: Duration, cpus: usize) -> Option<f64> {
    if elapsed < LEAST {
        return None;
    }
    let others =
        now.all.saturating_sub(before.all).saturating_sub(now.own.saturating_sub(before.own));
    Some((others.as_secs_f64() / (elapsed.as_secs_f64() * cpus as f64)).min(1.0))
}

fn spent(cpus: &[usize]) -> Option<Spent> {
    // SAFETY: it takes a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let ticks = u64::try_from(ticks).ok().filter(|ticks| *ticks > 0)?;
    let all = busy(&std::fs::read_to_string("/proc/stat").ok()?, cpus)?;
    // SAFETY: an all-zero `rusage` is a valid one.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is valid for writing.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return None;
    }
    let time = |it: libc::timeval| {
        Duration::from_secs(it.tv_sec.unsigned_abs())
            + Duration::from_micros(it.tv_usec.unsigned_abs())
    };
    let own = time(usage.ru_utime) + time(usage.ru_stime);
    Some(Spent { all: Duration::from_secs_f64(all as f64 / ticks as f64), own })
}

/// Ticks of these processors in a text of `/proc/stat` that were neither idle nor waiting for a disk; those of guests stand in `user` too.
/// `None`: one of them is not there.
fn busy(stat: &str, cpus: &[usize]) -> Option<u64> {
    let ticks = |cpu: &usize| {
        let line = stat.lines().find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")))?;
        let fields: Vec<u64> = line.split_whitespace().filter_map(|it| it.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        [0, 1, 2, 5, 6, 7].iter().map(|&place| fields.get(place).copied()).sum::<Option<u64>>()
    };
    cpus.iter().map(ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_processor_did_is_read() {
        let stat = "cpu  1 1 1 1 1 1 1 1 1 1\ncpu0 10 20 30 1000 2000 1 2 3 500 0\ncpu1 5 0 0 9 9 0 0 0 0 0\ncpu10 7 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(busy(stat, &[0]), Some(66));
        assert_eq!(busy(stat, &[1, 10]), Some(12));
        assert_eq!(busy(stat, &[0, 2]), None);
    }

    #[test]
    fn what_others_took_is_what_is_left() {
        let spent = |all: f64, own: f64| Spent {
            all: Duration::from_secs_f64(all),
            own: Duration::from_secs_f64(own),
        };
        let after = |now: Spent, elapsed: f64| {
            share(spent(10.0, 4.0), now, Duration::from_secs_f64(elapsed), 2)
        };
        assert_eq!(after(spent(12.0, 5.5), 1.0), Some(0.25));
        assert_eq!(after(spent(12.0, 6.25), 1.0), Some(0.0), "clocks that differ by a little");
        assert_eq!(after(spent(12.0, 4.0), 0.25), None);
    }

    /// In a process of its own: time of this one's other tests is not that of others.
    #[test]
    fn work_of_another_process_is_seen() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "bench::others::tests::a_busy_neighbour", "--ignored"]);
        let output = alone.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    #[ignore = "started by the test above"]
    fn a_busy_neighbour() {
        let cpus = super::super::cpus(1).unwrap();
        super::super::pin(&cpus).unwrap();
        let watch = Others::begin(&cpus);
        // It inherits the processor.
        let mut other = std::process::Command::new("sh");
        let mut other = other.args(["-c", "while :; do :; done"]).spawn().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        let share = watch.share();
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(share.is_none_or(|share| share > 0.5), "{share:?}");
    }
}
