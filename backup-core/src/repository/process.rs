//! Which process has a session, so that whoever waits for it on the same machine sees that it is gone.
//!
//! From Linux's `/proc` (proc(5)); elsewhere nobody can tell, and sessions that have stopped are known by the signs of life that
//! they do not give. To take a process that is alive for gone would cost its writer a second session, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

/// Registrations that jobs of this process go on with, and how many each: not sessions, as the same snapshot can be brought to two
/// places at once, or be wanted by two jobs in one, and who ends, or does not get it, must not make another look as if he were gone.
static OPEN: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());
/// Tells the registrations of this process apart.
static REGISTRATIONS: AtomicU64 = AtomicU64::new(0);

fn open() -> MutexGuard<'static, BTreeMap<String, usize>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names a registration that nobody has had: this process, and a number.
pub(crate) fn registration() -> Option<String> {
    Some(format!("{} {}", own()?, REGISTRATIONS.fetch_add(1, Ordering::Relaxed)))
}

/// A job of this process goes on with a registration from now on.
pub(crate) fn begin(registration: &str) {
    let mut open = open();
    let jobs = open.entry(registration.to_owned()).or_default();
    *jobs = jobs.saturating_add(1);
}

/// Of those in this process who go on with a registration, one does nothing any more in its name.
pub(crate) fn end(registration: &str) {
    let mut open = open();
    if let Some(jobs) = open.get_mut(registration) {
        *jobs = jobs.saturating_sub(1);
        if *jobs == 0 {
            open.remove(registration);
        }
    }
}

/// What this process is called: a machine since it was started, with the processes that it shows; a process; when that began.
fn own() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    let machine = Sha256::digest(format!("{} {}", boot.trim(), space.display()));
    let machine = hex::encode(machine.first_chunk::<8>()?);
    let (pid, Some(began)) = stat("self")? else { return None };
    Some(format!("{machine} {pid} {began}"))
}

/// Whether the process of a registration is gone, or has given it up. False where nobody can tell.
pub(crate) fn is_gone(registration: &str) -> bool {
    let Some(own) = own() else { return false };
    if open().contains_key(registration) {
        return false;
    }
    let parts = |text: &'_ str| -> Option<(String, String, String)> {
        let mut parts = text.split(' ').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()?))
    };
    let (Some(own), Some(theirs)) = (parts(&own), parts(registration)) else { return false };
    if own == theirs {
        return true;
    }
    let ((here, ..), (machine, pid, began)) = (own, theirs);
    if here != machine || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    match stat(&pid) {
        Some((_, now)) => now.is_none_or(|now| now != began),
        // Where others' processes are hidden (`hidepid`), so is the first one.
        None => Path::new("/proc/1/stat").exists() && !Path::new("/proc").join(&pid).exists(),
    }
}

/// A process's number and, unless it has ended and nobody has asked how, when it began.
fn stat(process: &str) -> Option<(String, Option<String>)> {
    let text = fs::read_to_string(Path::new("/proc").join(process).join("stat")).ok()?;
    // The second field is a name in brackets, which may hold anything.
    let (pid, rest) = text.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let has_ended = matches!(fields.first(), Some(&"Z" | &"X"));
    let began = fields.get(19).map(|began| (*began).to_owned()).filter(|_| !has_ended);
    Some((pid.to_owned(), began))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::process::Command;

    use super::*;

    #[test]
    fn processes_that_are_gone_are_told_from_those_that_are_not() {
        let (first, second) = (registration().unwrap(), registration().unwrap());
        let [machine, pid, began, _] = first.split(' ').collect::<Vec<_>>()[..] else { panic!("{first}") };
        assert!(is_gone(&first), "nobody goes on with it");
        begin(&first);
        // Somebody else here who wanted the session, and did not get it.
        begin(&second);
        end(&second);
        assert!(!is_gone(&first) && is_gone(&second));
        // Somebody who brings the same snapshot elsewhere has not given it up there.
        begin(&second);
        end(&first);
        assert!(is_gone(&first) && !is_gone(&second));
        end(&second);
        // What another process left is gone until somebody goes on with it.
        let left = format!("{machine} {pid} {began}1 7");
        begin(&left);
        assert!(!is_gone(&left));
        end(&left);
        assert!(is_gone(&left), "the number was given to another");
        assert!(is_gone(&format!("{machine} {pid} {began}1")), "the number was given to another");
        assert!(!is_gone(&format!("0{machine} {pid} {began}1")), "another machine");
        for odd in ["", " ", "  ", machine, &format!("{machine} ../1 {began}"), &format!("{machine} {pid}")] {
            assert!(!is_gone(odd), "{odd:?}");
        }

        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (number, began) = stat(&child.id().to_string()).unwrap();
        let name = format!("{machine} {number} {}", began.unwrap());
        assert!(!is_gone(&name));
        child.kill().unwrap();
        // Until it is waited for it is there, and has ended.
        while stat(&number).is_none_or(|(_, began)| began.is_some()) {
            std::thread::yield_now();
        }
        assert!(is_gone(&name));
        child.wait().unwrap();
        assert!(is_gone(&name));
    }
}
