//! Processors that a benchmark may use.

use crate::{Error, Result};

fn refused() -> Error {
    let reason = std::io::Error::last_os_error();
    Error::machine(format!("the processors of this process cannot be set: {reason}"))
}

/// Numbers of the first `count` processors that this thread may use.
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
    let mut usable: Vec<usize> = (0..libc::CPU_SETSIZE as usize).filter(usable).collect();
    if count == 0 || usable.len() < count {
        return Err(Error::user(format!(
            "{count} threads on {} processors would wait for each other",
            usable.len()
        ))
        .help(format!("set threads = {} or fewer", usable.len())));
    }
    usable.truncate(count);
    Ok(usable)
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
