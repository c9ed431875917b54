//! A Slurm cluster of one node on this machine: munged, slurmctld and slurmd in a folder of their own.
//!
//! Debian and Ubuntu: `apt-get install slurm-wlm munge slurm-client`. slurmd starts jobs as their user
//! and so must be root; where the programs are missing or the tests do not run as root, tests that need
//! the cluster say so and pass.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::project::{Project, wait_for};

/// A cluster, until it is dropped.
pub struct Cluster {
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
}

const PROGRAMS: [&str; 7] =
    ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel"];

/// Why there can be no cluster here.
fn missing() -> Option<String> {
    let found = |name: &str| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let system = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
        std::env::split_paths(&folders)
            .chain(system)
            .map(|folder| folder.join(name))
            .find(|p| p.exists())
    };
    let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| found(name).is_none()).collect();
    // SAFETY: no memory is passed; it cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    match (missing.is_empty(), root) {
        (false, _) => Some(format!("{} not installed", missing.join(", "))),
        (true, false) => Some("slurmd must run as root".to_owned()),
        (true, true) => None,
    }
}

impl Cluster {
    /// Starts one; `None`, with the reason printed, where that is not possible.
    pub fn start() -> Option<Self> {
        Self::with("JobAcctGatherType=jobacct_gather/none\nSelectTypeParameters=CR_Core")
    }

    /// One that ends jobs which take more memory than they asked for.
    pub fn start_with_bounded_memory() -> Option<Self> {
        Self::with(
            "JobAcctGatherType=jobacct_gather/linux\nJobAcctGatherFrequency=task=1\n\
             JobAcctGatherParams=OverMemoryKill\nSelectTypeParameters=CR_Core_Memory",
        )
    }

    fn with(memory: &str) -> Option<Self> {
        if let Some(reason) = missing() {
            eprintln!("skipped: no Slurm cluster can be started here: {reason}");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("qp-slurm").tempdir().unwrap();
        let mut cluster = Self { folder, daemons: Vec::new() };
        let place = |name: &str| cluster.folder.path().join(name);
        for name in ["state", "spool"] {
            std::fs::create_dir(place(name)).unwrap();
        }
        write_private(&place("munge.key"), &[7; 1024]);
        std::fs::write(place("slurm.conf"), configuration(cluster.folder.path(), memory)).unwrap();
        let option = |name: &str, file: &str| format!("--{name}={}", place(file).display());
        let munged = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            option("key-file", "munge.key"),
            option("socket", "munge.sock"),
            option("pid-file", "munged.pid"),
            option("log-file", "munged.log"),
            option("seed-file", "munge.seed"),
        ];
        let socket = place("munge.sock");
        cluster.daemon("munged", &munged);
        wait_for("munged", || socket.exists());
        cluster.daemon("slurmctld", &["-D".to_owned(), "-c".to_owned()]);
        cluster.daemon("slurmd", &["-D".to_owned()]);
        wait_for("the node", || {
            let state = cluster.ask("sinfo", &["--noheader", "--format=%t"]);
            ["idle", "mix", "alloc"].iter().any(|good| state.starts_with(good))
        });
        Some(cluster)
    }

    fn daemon(&mut self, program: &str, arguments: &[String]) {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .env("SLURM_CONF", self.conf())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: one system call that is safe between fork and exec.
        unsafe {
            // A test that is killed takes its cluster along.
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            });
        }
        self.daemons.push(command.spawn().unwrap());
    }

    fn conf(&self) -> PathBuf {
        self.folder.path().join("slurm.conf")
    }

    /// What one of Slurm's programs prints.
    pub fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).env("SLURM_CONF", self.conf()).output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }

    /// `JOB STATE` of all jobs, sorted.
    pub fn jobs(&self) -> Vec<String> {
        let format = ["--noheader", "--array", "--states=all", "--format=%i %T"];
        let mut jobs: Vec<String> =
            self.ask("squeue", &format).lines().map(str::to_owned).collect();
        jobs.sort();
        jobs
    }

    /// `qpipe run p.toml --executor slurm` with more arguments, on this cluster.
    pub fn run(&self, project: &Project, more: &[&str]) -> Command {
        let mut command =
            project.command(&[&["run", "p.toml", "--executor", "slurm"], more].concat());
        command.env("SLURM_CONF", self.conf());
        command
    }

    /// Another command of qpipe on this cluster.
    pub fn qpipe(&self, project: &Project, arguments: &[&str]) -> Command {
        let mut command = project.command(arguments);
        command.env("SLURM_CONF", self.conf());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.daemons.len() == 3 {
            self.ask("scancel", &["--user=root", "--signal=KILL", "--full"]);
            self.ask("scancel", &["--user=root"]);
            // A job that outlived its node's daemon would never be ended.
            let over = |cluster: &Self| cluster.ask("squeue", &["--noheader"]).is_empty();
            for _ in 0..50 {
                if over(self) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
        // The node first, so that the controller does not wait for it.
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn write_private(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::File::options();
    options.write(true).create_new(true).mode(0o600).open(path).unwrap().write_all(bytes).unwrap();
}

/// Eight processors, whatever there are, so that all jobs of a test fit.
fn configuration(folder: &Path, memory: &str) -> String {
    let folder = folder.display();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim().split('.').next().unwrap_or_default().to_owned();
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [control, node] = listeners.map(|listener| listener.local_addr().unwrap().port());
    format!(
        "ClusterName=qpipe-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
{memory}
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MinJobAge=300
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"
    )
}
