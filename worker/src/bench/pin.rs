//! Processors that a benchmark may use.

use std::collections::HashMap;

use crate::{Error, Result};

fn refused() -> Error {
    let reason = std::io::Error::last_os_error();
    Error::machine(format!("the processors of this process cannot be set: {reason}"))
}

/// Numbers of `count` processors that this thread may use: the first of each core, then the second ones, since threads of one core share its units.
///
/// # Errors
/// Fewer processors than asked for.
pub fn cpus(count: usize) -> Result<Vec<usize>> {
    // SAFETY: an all-zero `cpu_set_t` is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writing and of the size given; 0 is this thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Err(refused());
    }
    // SAFETY: the indices are below the set's capacity.
    let usable = |&cpu: &usize| unsafe { libc::CPU_ISSET(cpu, &set) };
    let usable: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(usable).collect();
    if count == 0 || usable.len() < count {
        return Err(Error::user(format!(
            "{count} threads on {} processors would wait for each other",
            usable.len()
        ))
        .help(format!("set threads = {} or fewer", usable.len())));
    }
    let mut usable = cores_first(usable, |cpu| {
        let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(topology).ok()
    });
    usable.truncate(count);
    Ok(usable)
}

/// Processors in the order in which they are the first, second, … of their core, by what is told of the processors of a core.
fn cores_first(cpus: Vec<usize>, core: impl Fn(usize) -> Option<String>) -> Vec<usize> {
    let mut met = HashMap::<String, usize>::new();
    let mut places: Vec<(usize, usize)> = cpus
        .into_iter()
        .map(|cpu| {
            // Of one that nothing is told of, it is a core itself.
            let on_core = met.entry(core(cpu).unwrap_or_else(|| cpu.to_string())).or_default();
            *on_core += 1;
            (*on_core, cpu)
        })
        .collect();
    places.sort_unstable();
    places.into_iter().map(|(_, cpu)| cpu).collect()
}

/// Binds this thread, and those that it starts from now on, to these processors.
///
/// # Errors
/// Processors that it may not use.
pub fn pin(cpus: &[usize]) -> Result<()> {
    // SAFETY: an all-zero `cpu_set_t` is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
        // SAFETY: the index is below the set's capacity.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is valid for reading and of the size given.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(refused());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_on_cores_of_their_own_first() {
        // Numbered as desktops have them, as servers, and where a container sees no topology.
        let neighbours = |cpu: usize| Some(format!("{}-{}", cpu / 2 * 2, cpu / 2 * 2 + 1));
        assert_eq!(cores_first((0..6).collect(), neighbours), [0, 2, 4, 1, 3, 5]);
        let apart = |cpu: usize| Some(format!("{},{}", cpu % 4, cpu % 4 + 4));
        assert_eq!(cores_first((0..8).collect(), apart), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(cores_first(vec![1, 4, 5], apart), [1, 4, 5]);
        assert_eq!(cores_first(vec![3, 7, 8], |_| None), [3, 7, 8]);
        // Of a core whose other thread is somebody else's.
        assert_eq!(cores_first(vec![1, 2, 3], neighbours), [1, 2, 3]);
    }

    #[test]
    fn threads_started_later_stay_on_the_processors() {
        std::thread::spawn(|| {
            let first = cpus(1).unwrap();
            pin(&first).unwrap();
            // Now only that one is left to choose from.
            assert_eq!(std::thread::spawn(|| cpus(1).unwrap()).join().unwrap(), first);
            let error = cpus(2).unwrap_err();
            assert!(error.message.contains("2 threads on 1 processors"), "{error}");
            assert!(pin(&[]).is_err());
        })
        .join()
        .unwrap();
    }
}
