//! What a machine has, what a stage needs of it, and what is free.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::gpus::Gpus;
use super::host;
use super::machine::Machine;

/// What a stage needs to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// Processors; fractions are allowed.
    pub cpus: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// GPUs: a whole number, or a part of one.
    pub gpus: f64,
    /// Nothing else may run on the machine meanwhile.
    pub alone: bool,
}

#[cfg(test)]
impl Need {
    /// One processor.
    pub const LIGHT: Self = Self { cpus: 1.0, memory: 0, gpus: 0.0, alone: false };
}

/// What a run may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    /// Stages at a time.
    pub jobs: usize,
    /// Processors.
    pub cpus: f64,
    /// Bytes of memory.
    pub memory: u64,
    /// Names of GPUs, as `CUDA_VISIBLE_DEVICES` takes them.
    pub gpus: Vec<String>,
}

impl Capacity {
    /// Of this machine. `jobs`: stages at a time, as many as processors where it is not given.
    pub fn of_machine(jobs: Option<usize>, gpus: &Gpus) -> Self {
        let cpus = host::threads();
        Self {
            jobs: jobs.unwrap_or(cpus).max(1),
            cpus: cpus as f64,
            memory: host::memory(),
            gpus: gpus.shared().names.clone(),
        }
    }

    /// What of a need this machine can never give: what, how much is needed, how much there is.
    pub fn lacks(&self, need: &Need) -> Option<(&'static str, String, String)> {
        let gpus = self.gpus.len() as f64;
        if need.cpus > self.cpus {
            Some(("processors", need.cpus.to_string(), self.cpus.to_string()))
        } else if need.memory > self.memory {
            let size = |bytes| indicatif::BinaryBytes(bytes).to_string();
            Some(("memory", size(need.memory), size(self.memory)))
        } else if need.gpus > gpus {
            Some(("GPUs", need.gpus.to_string(), gpus.to_string()))
        } else {
            None
        }
    }
}

/// What a running stage holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    need: Need,
    /// Names of its GPUs.
    pub gpus: Vec<String>,
}

impl Grant {
    /// Threads that it may use.
    pub fn threads(&self) -> usize {
        (self.need.cpus.floor() as usize).max(1)
    }

    /// Whether it has the machine to itself.
    pub fn alone(&self) -> bool {
        self.need.alone
    }
}

/// What is free.
#[derive(Clone, Debug)]
pub struct Pool {
    capacity: Capacity,
    running: usize,
    alone: bool,
    cpus: f64,
    memory: u64,
    /// Part of each GPU that is free, 0 to 1.
    gpus: BTreeMap<String, f64>,
    /// The machine, where stages of other runs may have GPUs.
    machine: Option<Rc<Machine>>,
}

/// Why a stage does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// Stages of this run have what it needs.
    Here,
    /// Stages of other runs have a GPU that it needs.
    Elsewhere,
}

/// Sums of fractions are not exact.
const SLACK: f64 = 1e-9;

impl Pool {
    /// All is free.
    pub fn new(capacity: Capacity) -> Self {
        let gpus = capacity.gpus.iter().map(|name| (name.clone(), 1.0)).collect();
        let (cpus, memory) = (capacity.cpus, capacity.memory);
        Self { capacity, running: 0, alone: false, cpus, memory, gpus, machine: None }
    }

    /// All is free but the GPUs that other runs on this machine have.
    pub fn among_others(capacity: Capacity, machine: Rc<Machine>) -> Self {
        Self { machine: Some(machine), ..Self::new(capacity) }
    }

    /// Takes all that a stage needs, or nothing.
    pub fn take(&mut self, need: &Need) -> Result<Grant, Busy> {
        let blocked = self.alone || (need.alone && self.running > 0);
        let fits = need.cpus <= self.cpus + SLACK && need.memory <= self.memory;
        if blocked || !fits || self.running >= self.capacity.jobs {
            return Err(Busy::Here);
        }
        let gpus = self.choose(need.gpus)?;
        let part = if need.gpus < 1.0 { need.gpus } else { 1.0 };
        for name in &gpus {
            self.gpus.entry(name.clone()).and_modify(|free| *free -= part);
        }
        self.running += 1;
        self.alone = need.alone;
        self.cpus -= need.cpus;
        self.memory -= need.memory;
        Ok(Grant { need: need.clone(), gpus })
    }

    /// GPUs for a need: whole ones that are free, or the fullest one that still has the part.
    fn choose(&self, need: f64) -> Result<Vec<String>, Busy> {
        if need <= 0.0 {
            return Ok(Vec::new());
        }
        let (part, count) = if need < 1.0 { (need, 1) } else { (1.0, need.round() as usize) };
        let mut fits: Vec<(&String, &f64)> =
            self.gpus.iter().filter(|(_, free)| **free + SLACK >= part).collect();
        if fits.len() < count {
            return Err(Busy::Here);
        }
        fits.sort_by(|a, b| a.1.total_cmp(b.1));
        let names = fits.into_iter().map(|(name, _)| name);
        let free = names.filter(|name| self.machine.as_ref().is_none_or(|it| it.has_free(name)));
        let names: Vec<String> = free.take(count).cloned().collect();
        if names.len() == count { Ok(names) } else { Err(Busy::Elsewhere) }
    }

    /// Takes back what a stage held.
    pub fn give_back(&mut self, grant: &Grant) {
        let need = &grant.need;
        let part = if need.gpus < 1.0 { need.gpus } else { 1.0 };
        for name in &grant.gpus {
            self.gpus.entry(name.clone()).and_modify(|free| *free = (*free + part).min(1.0));
        }
        self.running -= 1;
        self.alone = false;
        self.cpus += need.cpus;
        self.memory += need.memory;
    }

    /// What there is in all.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Whether no stage whatever fits.
    pub fn is_full(&self) -> bool {
        self.alone || self.running >= self.capacity.jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(jobs: usize) -> Pool {
        let gpus = vec!["a".to_owned(), "b".to_owned()];
        Pool::new(Capacity { jobs, cpus: 4.0, memory: 100, gpus })
    }

    fn need(cpus: f64, memory: u64, gpus: f64) -> Need {
        Need { cpus, memory, gpus, alone: false }
    }

    #[test]
    fn nothing_is_given_twice_and_all_comes_back() {
        let mut pool = pool(8);
        let one = pool.take(&need(2.5, 60, 0.0)).unwrap();
        assert!(pool.take(&need(2.0, 0, 0.0)).is_err(), "processors");
        assert!(pool.take(&need(1.0, 50, 0.0)).is_err(), "memory");
        let two = pool.take(&need(1.5, 40, 0.0)).unwrap();
        pool.give_back(&one);
        pool.give_back(&two);
        assert!(pool.take(&need(4.0, 100, 2.0)).is_ok());
    }

    #[test]
    fn gpus_are_whole_or_shared() {
        let mut pool = pool(8);
        let part = |pool: &mut Pool| pool.take(&need(0.1, 0, 0.5)).map(|grant| grant.gpus);
        assert_eq!(part(&mut pool).unwrap(), ["a"]);
        assert_eq!(part(&mut pool).unwrap(), ["a"], "the one that is in use already");
        let whole = pool.take(&need(0.1, 0, 1.0)).unwrap();
        assert_eq!(whole.gpus, ["b"]);
        assert_eq!(part(&mut pool), Err(Busy::Here));
        pool.give_back(&whole);
        assert!(pool.take(&need(0.1, 0, 2.0)).is_err());
        assert_eq!(part(&mut pool).unwrap(), ["b"]);
    }

    #[test]
    fn alone_means_alone_and_jobs_are_counted() {
        let mut pool = pool(2);
        let alone = Need { alone: true, ..need(1.0, 0, 0.0) };
        let one = pool.take(&need(1.0, 0, 0.0)).unwrap();
        assert!(pool.take(&alone).is_err());
        let two = pool.take(&need(1.0, 0, 0.0)).unwrap();
        assert!(pool.take(&need(1.0, 0, 0.0)).is_err(), "two jobs");
        pool.give_back(&one);
        pool.give_back(&two);
        assert!(pool.take(&alone).unwrap().alone());
        assert!(pool.take(&need(1.0, 0, 0.0)).is_err());
    }

    #[test]
    fn what_a_machine_never_has_is_named() {
        let capacity = pool(1).capacity;
        assert_eq!(capacity.lacks(&need(4.0, 100, 2.0)), None);
        let gpus = Some(("GPUs", "3".to_owned(), "2".to_owned()));
        assert_eq!(capacity.lacks(&need(1.0, 0, 3.0)), gpus);
        assert_eq!(capacity.lacks(&need(4.5, 0, 0.0)).unwrap().0, "processors");
        assert_eq!(capacity.lacks(&need(1.0, 101, 0.0)).unwrap().0, "memory");
    }
}
