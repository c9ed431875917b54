//! Starting a process without a copy of this one's memory map.
//!
//! `fork`, which the standard library falls back to where a process must inherit a lock and die with its
//! parent, copies the page tables: with 10,000 stages in memory that costs more than the rest of a trivial
//! stage. `vfork` (here `clone` with `CLONE_VM | CLONE_VFORK` and a stack of its own, as in the C library's
//! `posix_spawn`, which cannot set a parent-death signal) costs the same however large the runner is.

use std::ffi::{CString, OsStr, OsString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::ptr;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::process::Launch;

/// A child process; killed when it is dropped before its end was seen.
#[derive(Debug)]
pub struct Spawned {
    /// Its process, which leads a group of its own.
    pub pid: i32,
    /// Its standard output, until it was read to the end.
    pub output: Option<Receiver>,
    /// Its standard error, until it was read to the end.
    pub error: Option<Receiver>,
    end: End,
    status: Option<ExitStatus>,
}

/// What tells that a child may have ended.
#[derive(Debug)]
enum End {
    Descriptor(AsyncFd<OwnedFd>),
    /// A kernel older than 5.3 has no descriptors of processes.
    Signal(Signal),
}

/// What the child needs, all of it made before.
struct Plan {
    /// Where the program may be, in the order of the search.
    candidates: Vec<CString>,
    arguments: Vec<*const c_char>,
    /// For a script without a first line that names its interpreter: `/bin/sh`, a candidate, arguments.
    script: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    folder: CString,
    /// Become 0, 1 and 2.
    streams: [RawFd; 3],
    /// Stays open in the program and in all that it starts.
    lock: RawFd,
    parent: i32,
    /// Why it could not be started.
    error: c_int,
}

/// Enough for a handful of system calls.
const STACK: usize = 64 << 10;

/// Starts a process in a group of its own, with nothing to read, that inherits `lock` and dies with the thread
/// that started it.
///
/// # Errors
///
/// What the system says where the program or its folder is not there or may not be used.
pub fn spawn(launch: &Launch, more: &[(&str, &OsStr)], lock: RawFd) -> io::Result<Spawned> {
    let (output, output_end) = io::pipe()?;
    let (error, error_end) = io::pipe()?;
    let nothing = File::open("/dev/null")?;
    let environment = environment(launch, more);
    let arguments = strings(launch.line.iter())?;
    let variables = strings(environment.iter())?;
    let shell = CString::from(c"/bin/sh");
    let rest = arguments.iter().skip(1).map(|argument| argument.as_ptr());
    let mut plan = Plan {
        candidates: candidates(&launch.line[0], &environment)?,
        arguments: ended(arguments.iter().map(|argument| argument.as_ptr())),
        script: ended([shell.as_ptr(), ptr::null()].into_iter().chain(rest)),
        environment: ended(variables.iter().map(|variable| variable.as_ptr())),
        folder: string(launch.folder.as_os_str())?,
        streams: [nothing.as_raw_fd(), output_end.as_raw_fd(), error_end.as_raw_fd()],
        lock,
        parent: std::process::id().cast_signed(),
        error: 0,
    };
    let pid = start(&mut plan)?;
    // Dropped, and so ended and waited for, if the rest fails.
    let mut child = Unwatched(pid);
    if plan.error != 0 {
        return Err(io::Error::from_raw_os_error(plan.error));
    }
    let spawned = Spawned {
        pid,
        output: Some(Receiver::from_owned_fd(output.into())?),
        error: Some(Receiver::from_owned_fd(error.into())?),
        end: End::of(pid)?,
        status: None,
    };
    child.0 = 0;
    Ok(spawned)
}

/// A child that nobody waits for yet.
struct Unwatched(i32);

impl Drop for Unwatched {
    fn drop(&mut self) {
        if self.0 > 0 {
            // SAFETY: the child is ours and was not waited for, so its number is still its own.
            unsafe {
                libc::kill(self.0, libc::SIGKILL);
                libc::waitpid(self.0, ptr::null_mut(), 0);
            }
        }
    }
}

/// This process's variables, those of the launch and more; of the same name the last holds.
fn environment(launch: &Launch, more: &[(&str, &OsStr)]) -> Vec<OsString> {
    let added = launch.env.iter().map(|(name, value)| (OsStr::new(name), value.as_os_str()));
    let added: Vec<_> =
        added.chain(more.iter().map(|(name, value)| (OsStr::new(*name), *value))).collect();
    let own: Vec<_> = std::env::vars_os().collect();
    let own = own.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    let own = own.filter(|(name, _)| added.iter().all(|other| other.0 != *name));
    let last = |index: usize| added[index + 1..].iter().all(|later| later.0 != added[index].0);
    let added = added.iter().enumerate().filter(|(index, _)| last(*index)).map(|(_, it)| *it);
    own.chain(added).map(|(name, value)| [name, value].join(OsStr::new("="))).collect()
}

/// Where execvp(3) would look for a program, with the program's own `PATH`.
fn candidates(program: &OsStr, environment: &[OsString]) -> io::Result<Vec<CString>> {
    if program.as_bytes().contains(&b'/') {
        return Ok(vec![string(program)?]);
    }
    let path = environment.iter().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="));
    let folders = path.unwrap_or(b"/bin:/usr/bin").split(|byte| *byte == b':');
    let found = folders.map(|folder| {
        let folder = if folder.is_empty() { b"." } else { folder };
        string(&OsString::from_vec([folder, b"/", program.as_bytes()].concat()))
    });
    found.collect()
}

fn strings<'a>(texts: impl Iterator<Item = &'a OsString>) -> io::Result<Vec<CString>> {
    texts.map(|text| string(text)).collect()
}

fn string(text: &OsStr) -> io::Result<CString> {
    let zero = |_| io::Error::new(io::ErrorKind::InvalidInput, "it holds a zero byte");
    CString::new(text.as_bytes()).map_err(zero)
}

fn ended(pointers: impl Iterator<Item = *const c_char>) -> Vec<*const c_char> {
    pointers.chain([ptr::null()]).collect()
}

/// Starts the child; when this returns it runs its program, or `plan.error` says why not.
fn start(plan: &mut Plan) -> io::Result<i32> {
    let mut stack = Vec::<u128>::with_capacity(STACK / size_of::<u128>());
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end.cast::<c_void>();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let mut all = std::mem::MaybeUninit::uninit();
    let mut before = std::mem::MaybeUninit::uninit();
    // SAFETY: this thread stands still until the child has left this memory (CLONE_VFORK), so all that `plan` and
    // `stack` hold stays valid and nobody else touches it; the stack is aligned to 16 bytes and grows
    // downwards. No handler of a signal runs in the child: all are blocked until it has reset them.
    let pid = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let pid = libc::clone(child, top, flags, ptr::from_mut(plan).cast());
        let failed = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        if pid == -1 { Err(failed) } else { Ok(pid) }
    };
    drop(stack);
    pid
}

/// What the child does, in its parent's memory: only system calls, no allocation, no panic.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `start` passes a plan that nobody else uses meanwhile; all pointers in it end with a null and
    // point to strings that live longer than the child's use of them.
    unsafe {
        let plan = &mut *plan.cast::<Plan>();
        if prepare(plan) {
            execute(plan);
        }
        plan.error = *libc::__errno_location();
        libc::_exit(127)
    }
}

/// Whether all went well; `errno` says what did not.
unsafe fn prepare(plan: &Plan) -> bool {
    // SAFETY: as in `child`; handlers are the child's own since it does not share them.
    unsafe {
        for number in 1..=64 {
            let mut action = std::mem::zeroed::<libc::sigaction>();
            // Two numbers belong to the C library and are refused.
            let known = libc::sigaction(number, ptr::null(), &raw mut action) == 0;
            // What is ignored stays so, but for a broken pipe, which only Rust's programs ignore.
            let ignored = action.sa_sigaction == libc::SIG_IGN && number != libc::SIGPIPE;
            if known && action.sa_sigaction != libc::SIG_DFL && !ignored {
                action = std::mem::zeroed();
                action.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(number, &raw const action, ptr::null_mut());
            }
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        let streams = plan.streams.iter().zip(0..);
        let ready = libc::setpgid(0, 0) == 0
            && streams.fold(true, |done, (from, to)| done && libc::dup2(*from, to) == to)
            && libc::chdir(plan.folder.as_ptr()) == 0
            // The lock stays open in the new program and in all that it starts.
            && libc::fcntl(plan.lock, libc::F_SETFD, 0) == 0
            // It dies with the thread that started it: the runner's main thread.
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0;
        // The runner may have died before that was said.
        if ready && libc::getppid() != plan.parent {
            libc::_exit(127);
        }
        ready
    }
}

/// Becomes the program; comes back, with `errno`, if there is none to become.
unsafe fn execute(plan: &mut Plan) {
    let mut refused = 0;
    for candidate in &plan.candidates {
        // SAFETY: as in `child`.
        unsafe {
            libc::execve(candidate.as_ptr(), plan.arguments.as_ptr(), plan.environment.as_ptr());
            if *libc::__errno_location() == libc::ENOEXEC {
                plan.script[1] = candidate.as_ptr();
                libc::execve(plan.script[0], plan.script.as_ptr(), plan.environment.as_ptr());
            }
            match *libc::__errno_location() {
                libc::EACCES => refused = libc::EACCES,
                libc::ENOENT | libc::ENOTDIR => {}
                _ => return,
            }
        }
    }
    // SAFETY: a write to this thread's error number.
    unsafe { *libc::__errno_location() = if refused == 0 { libc::ENOENT } else { refused } };
}

impl End {
    fn of(pid: i32) -> io::Result<Self> {
        // SAFETY: the child was not waited for, so `pid` is its number; the descriptor is new and ours.
        let descriptor = unsafe {
            let descriptor = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            RawFd::try_from(descriptor)
                .ok()
                .filter(|it| *it >= 0)
                .map(|it| OwnedFd::from_raw_fd(it))
        };
        match descriptor {
            Some(descriptor) => {
                // SAFETY: an owned descriptor is the same one as long as it lives.
                let watched =
                    unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
                Ok(Self::Descriptor(watched?))
            }
            None => Ok(Self::Signal(signal(SignalKind::child())?)),
        }
    }

    /// Waits until the child may have ended.
    async fn sign(&mut self) -> io::Result<()> {
        match self {
            Self::Descriptor(descriptor) => descriptor.readable().await?.clear_ready(),
            Self::Signal(signal) => {
                signal.recv().await;
            }
        }
        Ok(())
    }
}

impl Spawned {
    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// Where the system does not know the child.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            self.end.sign().await?;
        }
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            let mut status = 0;
            // SAFETY: the child is ours and was not waited for.
            match unsafe { libc::waitpid(self.pid, &raw mut status, libc::WNOHANG) } {
                0 => {}
                pid if pid == self.pid => self.status = Some(ExitStatus::from_raw(status)),
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(self.status)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(None)) {
            // SAFETY: it was not waited for, so its number is still its own.
            unsafe { libc::kill(self.pid, libc::SIGKILL) };
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Starts a line with `PATH` as given; its status and output.
    fn run(
        line: &[&str],
        path: &str,
        folder: &std::path::Path,
    ) -> io::Result<(ExitStatus, String)> {
        let launch = Launch {
            line: line.iter().map(OsString::from).collect(),
            env: vec![("PATH".to_owned(), path.into()), ("A".to_owned(), "first".into())],
            folder: folder.to_owned(),
        };
        let lock = File::open("/dev/null").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut child = spawn(&launch, &[("A", "last".as_ref())], lock.as_raw_fd())?;
            let mut text = String::new();
            child.output.take().unwrap().read_to_string(&mut text).await?;
            Ok((child.wait().await?, text))
        })
    }

    const PATH: &str = "/usr/bin:/bin";

    #[test]
    fn a_child_has_its_folder_variables_group_and_lock_and_no_blocked_signal() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        let line = "pwd; echo $A; test $(ps -o pgid= -p $$) -eq $$ && grep SigBlk /proc/self/status; exit 3";
        let (status, text) = run(&["sh", "-c", line], PATH, &place).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(text, format!("{}\nlast\nSigBlk:\t0000000000000000\n", place.display()));
        // The same descriptor, so it was not closed on the way.
        let (_, text) = run(&["sh", "-c", "ls -l /proc/self/fd"], PATH, &place).unwrap();
        assert!(text.matches("/dev/null").count() >= 2, "{text}");
    }

    #[test]
    fn a_program_is_searched_as_execvp_does() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("no-first-line");
        crate::exec::test_program::write(&program, "echo ran $1");
        let path = format!("/nowhere:{}", folder.path().display());
        let (_, text) = run(&["no-first-line", "it"], &path, folder.path()).unwrap();
        assert_eq!(text, "ran it\n");
        let error = |line: &str, path: &str| run(&[line], path, folder.path()).unwrap_err();
        assert_eq!(error("no-first-line", PATH).kind(), io::ErrorKind::NotFound);
        std::fs::write(folder.path().join("data"), "").unwrap();
        assert_eq!(error("data", &path).kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(error("./data", PATH).kind(), io::ErrorKind::PermissionDenied);
        let gone = run(&["true"], PATH, &folder.path().join("gone")).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        assert_eq!(error("a\0b", PATH).kind(), io::ErrorKind::InvalidInput);
    }
}
