//! Runs the program and stops it at its system calls: each is shown to the test, which lets it happen, makes it fail or
//! kills the process in its place (ptrace(2)).
//!
//! `strace` can inject errors and signals, too, but counts calls per thread and cannot tell a file by its directory; here
//! calls are counted over the whole process, and a test may change files while the program stands still.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A system call that is about to happen.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: &'static str,
    /// The file it is about; of two, the one that comes to be.
    pub path: PathBuf,
    /// Whether it changes a file system.
    pub changes: bool,
    /// The arguments as they are.
    pub arguments: [u64; 4],
}

/// What is to become of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Go,
    /// The process is killed before the call has any effect.
    Kill,
    /// The call has no effect and fails with this number.
    Fail(i32),
}

/// What a run did.
#[derive(Debug)]
pub struct Traced {
    /// The exit code; none of a process that was killed.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Where a call has its path.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Fd,
    Path(usize),
    At(usize, usize),
}
use Shape::{At, Fd, Path as Named};

const CHANGES: bool = true;
const READS: bool = false;

/// The calls that concern files.
const CALLS: &[(i64, &str, Shape, bool)] = &[
    (libc::SYS_write, "write", Fd, CHANGES),
    (libc::SYS_pwrite64, "pwrite64", Fd, CHANGES),
    (libc::SYS_writev, "writev", Fd, CHANGES),
    (libc::SYS_pwritev, "pwritev", Fd, CHANGES),
    (libc::SYS_fsync, "fsync", Fd, CHANGES),
    (libc::SYS_fdatasync, "fdatasync", Fd, CHANGES),
    (libc::SYS_sync_file_range, "sync_file_range", Fd, CHANGES),
    (libc::SYS_ftruncate, "ftruncate", Fd, CHANGES),
    (libc::SYS_fallocate, "fallocate", Fd, CHANGES),
    (libc::SYS_copy_file_range, "copy_file_range", Fd, CHANGES),
    (libc::SYS_fchmod, "fchmod", Fd, CHANGES),
    (libc::SYS_flock, "flock", Fd, READS),
    (libc::SYS_mkdir, "mkdir", Named(0), CHANGES),
    (libc::SYS_mkdirat, "mkdirat", At(0, 1), CHANGES),
    (libc::SYS_rename, "rename", Named(1), CHANGES),
    (libc::SYS_renameat, "renameat", At(2, 3), CHANGES),
    (libc::SYS_renameat2, "renameat2", At(2, 3), CHANGES),
    (libc::SYS_link, "link", Named(1), CHANGES),
    (libc::SYS_linkat, "linkat", At(2, 3), CHANGES),
    (libc::SYS_symlinkat, "symlinkat", At(1, 2), CHANGES),
    (libc::SYS_unlink, "unlink", Named(0), CHANGES),
    (libc::SYS_unlinkat, "unlinkat", At(0, 1), CHANGES),
    (libc::SYS_open, "open", Named(0), READS),
    (libc::SYS_openat, "openat", At(0, 1), READS),
    (libc::SYS_openat2, "openat2", At(0, 1), READS),
    (libc::SYS_read, "read", Fd, READS),
    (libc::SYS_pread64, "pread64", Fd, READS),
    (libc::SYS_readv, "readv", Fd, READS),
    (libc::SYS_preadv, "preadv", Fd, READS),
    (libc::SYS_lseek, "lseek", Fd, READS),
    (libc::SYS_fadvise64, "fadvise64", Fd, READS),
    (libc::SYS_ioctl, "ioctl", Fd, READS),
    (libc::SYS_getdents64, "getdents64", Fd, READS),
    (libc::SYS_fstat, "fstat", Fd, READS),
    (libc::SYS_stat, "stat", Named(0), READS),
    (libc::SYS_lstat, "lstat", Named(0), READS),
    (libc::SYS_newfstatat, "newfstatat", At(0, 1), READS),
    (libc::SYS_statx, "statx", At(0, 1), READS),
    (libc::SYS_readlink, "readlink", Named(0), READS),
    (libc::SYS_readlinkat, "readlinkat", At(0, 1), READS),
    (libc::SYS_listxattr, "listxattr", Named(0), READS),
    (libc::SYS_llistxattr, "llistxattr", Named(0), READS),
    (libc::SYS_flistxattr, "flistxattr", Fd, READS),
    (libc::SYS_getxattr, "getxattr", Named(0), READS),
    (libc::SYS_lgetxattr, "lgetxattr", Named(0), READS),
    (libc::SYS_fgetxattr, "fgetxattr", Fd, READS),
];

/// Runs `command`, of which arguments, variables and directory are taken, and asks `decide` at each call that concerns
/// a file. Output goes to files in `scratch`.
pub fn run(command: &Command, scratch: &Path, mut decide: impl FnMut(&Call) -> Then) -> Traced {
    let (out, err) = (scratch.join("traced-out"), scratch.join("traced-err"));
    // The shell stops itself, so that the program is held from its first instruction on.
    let mut held = Command::new("/bin/sh");
    held.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    held.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        held.current_dir(directory);
    }
    held.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for below, as one of the threads that are followed"
    )]
    let child = held.spawn().unwrap();
    let leader = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let stopped = waitpid(leader, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert_eq!(stopped, WaitStatus::Stopped(leader, Signal::SIGSTOP));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    if let Err(error) = ptrace::seize(leader, options) {
        kill(leader, Signal::SIGKILL).unwrap();
        waitpid(leader, None).unwrap();
        panic!(
            "this test must be allowed to trace its own children (ptrace(2), kernel.yama.ptrace_scope): {error}"
        );
    }
    kill(leader, Signal::SIGCONT).unwrap();
    let code = follow(leader, &mut decide);
    let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    Traced { code, out: text(&out), err: text(&err) }
}

/// Lets the process run to its end, from one stop to the next.
fn follow(leader: Pid, decide: &mut impl FnMut(&Call) -> Then) -> Option<i32> {
    // The threads that are within a call, with the error that it is to have.
    let mut within: HashMap<Pid, Option<i32>> = HashMap::new();
    // Only the children of this thread: other tests run beside it.
    let every = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    loop {
        let (thread, signal) = match waitpid(Pid::from_raw(-1), Some(every)).unwrap() {
            WaitStatus::Exited(thread, code) if thread == leader => return Some(code),
            WaitStatus::Signaled(thread, _, _) if thread == leader => return None,
            WaitStatus::PtraceSyscall(thread) => {
                if at_call(thread, &mut within, decide) == Then::Kill {
                    kill(leader, Signal::SIGKILL).unwrap();
                    continue;
                }
                (thread, None)
            }
            WaitStatus::PtraceEvent(thread, _, _) => (thread, None),
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            _ => continue,
        };
        // A thread that is gone meanwhile is told of by another status.
        let _ = ptrace::syscall(thread, signal);
    }
}

fn at_call(
    thread: Pid,
    within: &mut HashMap<Pid, Option<i32>>,
    decide: &mut impl FnMut(&Call) -> Then,
) -> Then {
    let Ok(mut registers) = ptrace::getregs(thread) else { return Then::Go };
    if let Some(error) = within.remove(&thread) {
        if let Some(error) = error {
            registers.rax = i64::from(-error).cast_unsigned();
            ptrace::setregs(thread, registers).unwrap();
        }
        return Then::Go;
    }
    let then = decode(thread, &registers).map_or(Then::Go, |call| decide(&call));
    let mut error = None;
    if let Then::Fail(number) = then {
        error = Some(number);
        // No call has this number.
        registers.orig_rax = u64::MAX;
        ptrace::setregs(thread, registers).unwrap();
    }
    within.insert(thread, error);
    then
}

fn decode(thread: Pid, registers: &libc::user_regs_struct) -> Option<Call> {
    let number = registers.orig_rax.cast_signed();
    let &(_, name, shape, changes) = CALLS.iter().find(|call| call.0 == number)?;
    let arguments = [registers.rdi, registers.rsi, registers.rdx, registers.r10];
    let path = match shape {
        Fd => of_descriptor(thread, arguments[0])?,
        Named(at) => absolute(thread, AT_FDCWD, arguments[at])?,
        At(directory, at) => absolute(thread, arguments[directory], arguments[at])?,
    };
    let creates = match name {
        "open" => arguments[1] & CREATE != 0,
        "openat" => arguments[2] & CREATE != 0,
        "openat2" => u64::from_ne_bytes(memory(thread, arguments[2], 8)?.try_into().ok()?) & CREATE != 0,
        _ => false,
    };
    Some(Call { name, path, changes: changes || creates, arguments })
}

const AT_FDCWD: u64 = 0xffff_ff9c;
const CREATE: u64 = 0o100;

fn of_descriptor(thread: Pid, descriptor: u64) -> Option<PathBuf> {
    let descriptor = descriptor & 0xffff_ffff;
    let link = match descriptor {
        AT_FDCWD => format!("/proc/{thread}/cwd"),
        _ => format!("/proc/{thread}/fd/{descriptor}"),
    };
    std::fs::read_link(link).ok()
}

fn absolute(thread: Pid, directory: u64, name: u64) -> Option<PathBuf> {
    let bytes = memory(thread, name, 4096)?;
    let name = bytes.split(|&byte| byte == 0).next()?;
    let name = Path::new(std::ffi::OsStr::new(std::str::from_utf8(name).ok()?));
    // Extended attributes are read by way of a directory's descriptor.
    if let Ok(rest) = name.strip_prefix("/proc/self/fd") {
        let mut parts = rest.components();
        let descriptor = parts.next()?.as_os_str().to_str()?.parse().ok()?;
        return Some(join(of_descriptor(thread, descriptor)?, parts.as_path()));
    }
    if name.is_absolute() {
        return Some(name.to_owned());
    }
    Some(join(of_descriptor(thread, directory)?, name))
}

fn join(base: PathBuf, name: &Path) -> PathBuf {
    if name.as_os_str().is_empty() || name == Path::new(".") { base } else { base.join(name) }
}

/// At most `len` bytes at `address`, up to where the memory ends.
fn memory(thread: Pid, address: u64, len: usize) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    // Never across a page that may not be there.
    let mut bytes = vec![0; len];
    let mut got = 0;
    while got < len {
        let at = address + got as u64;
        let page = usize::try_from(4096 - at % 4096).unwrap().min(len - got);
        match memory.read_at(&mut bytes[got..got + page], at) {
            Ok(0) | Err(_) => break,
            Ok(more) => got += more,
        }
        if bytes[..got].contains(&0) {
            break;
        }
    }
    bytes.truncate(got);
    (got > 0).then_some(bytes)
}
