//! Processes with less than usual: mounts of their own, no hard links, another user.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Set in the process that [`in_namespace`] starts.
const INSIDE: &str = "QPIPE_TEST_INSIDE";

/// Runs a test, by its whole name, in a process of its own with mounts of its own: `true` in that
/// process. Where the system does not allow it, the test is skipped, with a word.
pub fn in_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // SAFETY: no memory is passed, and it cannot fail.
    let user = unsafe { libc::geteuid() };
    let flag = if user == 0 { "-m" } else { "-rm" };
    let try_out = ["sh", "-c", "mount -t tmpfs none /mnt"];
    let allowed = Command::new("unshare").arg(flag).args(try_out).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("skipped: `unshare {flag}` and a mount are not allowed here");
        return false;
    }
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.arg(flag).arg(program).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    print!("{out}");
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{error}");
    false
}

/// Mounts a small file system of memory.
pub fn mount_tmpfs(path: &std::path::Path, options: &str) {
    std::fs::create_dir_all(path).unwrap();
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", options, "none"]).arg(path);
    assert!(command.status().unwrap().success());
}

/// Takes it away again, with all that is in it.
pub fn unmount(path: &std::path::Path) {
    assert!(Command::new("umount").arg("-l").arg(path).status().unwrap().success());
}

/// The command, and all that it starts, gets EPERM from link(2), as on file systems without hard links.
pub fn without_links(command: &mut Command) -> &mut Command {
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    let line = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let number = |call: libc::c_long| u32::try_from(call).unwrap();
    #[cfg(target_arch = "x86_64")]
    let old = number(libc::SYS_link);
    #[cfg(not(target_arch = "x86_64"))]
    let old = number(libc::SYS_linkat);
    let refused = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPERM).unwrap();
    let mut filter = vec![
        line(load, 0, 0, 0),
        line(equal, 2, 0, number(libc::SYS_linkat)),
        line(equal, 1, 0, old),
        line(end, 0, 0, libc::SECCOMP_RET_ALLOW),
        line(end, 0, 0, refused),
    ];
    // SAFETY: only system calls that are safe between fork and exec; the filter lives in the closure.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog {
                len: u16::try_from(filter.len()).unwrap_or(0),
                filter: filter.as_mut_ptr(),
            };
            let done = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
                    == 0;
            if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        })
    }
}
