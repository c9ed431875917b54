//! Processors that a benchmark may use.

use crate::{Error, Result};

/// Binds this thread, and all that it starts from now on, to the first `count` processors that it may use; their numbers.
///
/// # Errors
/// Fewer processors than asked for.
pub fn pin(count: usize) -> Result<Vec<usize>> {
    let refused = || {
        let reason = std::io::Error::last_os_error();
        Error::machine(format!("the processors of this process cannot be set: {reason}"))
    };
    // SAFETY: an all-zero `cpu_set_t` is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writing and of the size given; 0 is this thread.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) } != 0 {
        return Err(refused());
    }
    // SAFETY: the indices are below the set's capacity.
    let usable =
        (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) });
    let usable: Vec<usize> = usable.collect();
    if usable.len() < count {
        return Err(Error::user(format!(
            "{count} threads on {} processors would wait for each other",
            usable.len()
        ))
        .help(format!("set threads = {} or fewer", usable.len())));
    }
    let chosen = usable[..count].to_vec();
    // SAFETY: as above.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &cpu in &chosen {
        // SAFETY: the index came out of such a set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: `set` is valid for reading and of the size given.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) } != 0 {
        return Err(refused());
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_started_later_stay_on_the_processors() {
        std::thread::spawn(|| {
            let first = pin(1).unwrap();
            assert_eq!(first.len(), 1);
            // Now only that one is left to choose from.
            assert_eq!(std::thread::spawn(|| pin(1).unwrap()).join().unwrap(), first);
            let error = pin(2).unwrap_err();
            assert!(error.message.contains("2 threads on 1 processors"), "{error}");
        })
        .join()
        .unwrap();
    }
}
