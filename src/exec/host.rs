//! Facts of the machine that need no library: its processor and its identity.

use std::collections::BTreeSet;
use std::path::Path;

use super::nvidia;
use crate::cache::Digest;

/// Processor model, how many cores this process may use, and the instruction sets that inference
/// and training choose kernels by.
pub fn cpu() -> String {
    describe(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default(), threads())
}

/// Cores that this process may use (sched_getaffinity(2), and the control group's share). A Slurm job
/// may use those that it was given, whether the cluster holds it to them or not.
pub fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let given = std::env::var("SLURM_CPUS_ON_NODE").ok().and_then(|given| given.parse().ok());
    cores.min(given.unwrap_or(cores)).max(1)
}

/// Bytes of memory that this process may use: the machine's, or the least limit of its control groups, such as those of a container and of a Slurm job.
pub fn memory() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let total = memory_of(&read("/proc/meminfo")).unwrap_or(u64::MAX);
    total.min(memory_limit(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")))
}

/// The least limit of the groups that a process is in and of those above, of both versions (cgroups(7)). A container sees its own groups' files alone, and names them as
/// the machine does, or as the root: what is not there has no limit.
fn memory_limit(groups: &str, mounted: &Path) -> u64 {
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let (base, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let own = Path::new(group.trim_start_matches('/'));
        let limit = |group: &Path| {
            std::fs::read_to_string(base.join(group).join(file)).ok()?.trim().parse::<u64>().ok()
        };
        own.ancestors().filter_map(limit).collect()
    });
    limits.min().unwrap_or(u64::MAX)
}

fn memory_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Names of the GPUs that this process may use: `CUDA_VISIBLE_DEVICES`, else all that NVIDIA's
/// driver lists, by number.
pub fn gpus() -> Vec<String> {
    if let Ok(named) = std::env::var(nvidia::VISIBLE) {
        // CUDA looks no further than at the first that is none.
        let names = named.split(',').map(|name| name.trim().to_owned());
        return names.take_while(|name| !name.is_empty() && name != "-1").collect();
    }
    let count = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    (0..count).map(|number| number.to_string()).collect()
}

/// What NVIDIA's driver says of itself and its GPUs, in their order; empty where there is none. To see that something changed, not to be read.
pub fn driver() -> String {
    let mut text = std::fs::read_to_string("/proc/driver/nvidia/version").unwrap_or_default();
    let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    // Their names are their places on the bus.
    let mut gpus: Vec<_> = gpus.map(|gpu| gpu.path()).collect();
    gpus.sort();
    for gpu in gpus {
        let told = std::fs::read_to_string(gpu.join("information")).unwrap_or_default();
        let same = |line: &&str| line.starts_with("Model") || line.starts_with("GPU UUID");
        text.extend(told.lines().filter(same).flat_map(|line| ["\n", line]));
    }
    text
}

/// This machine and no other: its name, and a digest of its id. (The id itself is confidential; see
/// machine-id(5). It alone may be that of a container image.)
pub fn identity() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let ids = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
    let id = ids.iter().map(|path| read(path)).find(|id| !id.trim().is_empty());
    let id = format!("qpipe {}", id.unwrap_or_default().trim());
    format!("{} {}", name(), Digest::of(id.as_bytes()).short())
}

/// The machine's name.
pub fn name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Prefixes of the flags in `/proc/cpuinfo` that matter: vector, matrix and dot-product sets of
/// x86 and Arm.
const SETS: &[&str] = &["avx", "fma", "amx", "f16c", "asimd", "sve", "sme", "i8mm", "bf16", "fphp"];

fn describe(cpuinfo: &str, cores: usize) -> String {
    let field = |names: &[&str]| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            names.contains(&name.trim()).then(|| value.trim().to_owned())
        })
    };
    let model = field(&["model name", "Model", "CPU part"]).unwrap_or_else(|| "unknown".to_owned());
    let flags = field(&["flags", "Features"]).unwrap_or_default();
    let flags: BTreeSet<&str> = flags
        .split_whitespace()
        .filter(|flag| SETS.iter().any(|set| flag.starts_with(set)))
        .collect();
    let flags: Vec<&str> = flags.into_iter().collect();
    format!("{model}; {cores} cores; {}", flags.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(memory_of("MemTotal:  2 kB\nMemFree: 1 kB\n"), Some(2048));
        assert!(memory() > 1 << 20);
    }

    #[test]
    fn memory_is_limited_by_each_group_above() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let limit = |groups: &str| memory_limit(groups, folder.path());
        assert_eq!(limit("0::/\n"), u64::MAX);
        assert_eq!(limit(""), u64::MAX);
        // A step of a Slurm job: the job's limit counts, as the root's would.
        write("system.slice/slurmstepd.scope/job_7/memory.max", "4096\n");
        write("system.slice/slurmstepd.scope/job_7/step_0/memory.max", "max\n");
        let step = "0::/system.slice/slurmstepd.scope/job_7/step_0\n";
        assert_eq!(limit(step), 4096);
        assert_eq!(limit("0::/system.slice\n"), u64::MAX);
        write("memory.max", "1024\n");
        assert_eq!(limit(step), 1024);
        // Version 1; in a container its own group is the root of the mount.
        write("memory/memory.limit_in_bytes", "512\n");
        write("memory/docker/a/memory.limit_in_bytes", "9223372036854771712\n");
        let old = "5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n";
        assert_eq!(limit(old), 512);
        assert_eq!(limit("5:cpu,cpuacct:/docker/a\n"), u64::MAX);
    }

    #[test]
    fn the_first_processor_speaks_for_all() {
        let text = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 sse4_2 avx512_vnni\n\n\
                    processor\t: 1\nmodel name\t: B\n";
        assert_eq!(describe(text, 2), "A CPU; 2 cores; avx2 avx512_vnni");
        assert_eq!(
            describe("CPU part : 0xd40\nFeatures : fp asimddp\n", 1),
            "0xd40; 1 cores; asimddp"
        );
    }
}
