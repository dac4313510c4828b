//! Which process has a session, so that whoever waits for it on the same machine sees that it is gone.
//!
//! From Linux's `/proc` (proc(5)); elsewhere nobody can tell, and sessions that have stopped are known by the signs of life that
//! they do not give. To take a process that is alive for gone would cost its writer a second session, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::SnapshotId;

/// Sessions that this process has, and how many of its jobs have each: of two that bring one snapshot to one place, or to two, the
/// one that ends must not make the other one look as if it were gone.
static OPEN: Mutex<BTreeMap<SnapshotId, usize>> = Mutex::new(BTreeMap::new());

fn open() -> MutexGuard<'static, BTreeMap<SnapshotId, usize>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process has a session from now on.
pub(crate) fn begin(session: SnapshotId) {
    let mut open = open();
    let jobs = open.entry(session).or_default();
    *jobs = jobs.saturating_add(1);
}

/// Of those in this process who have a session, one does nothing any more in its name.
pub(crate) fn end(session: SnapshotId) {
    let mut open = open();
    if let Some(jobs) = open.get_mut(&session) {
        *jobs = jobs.saturating_sub(1);
        if *jobs == 0 {
            open.remove(&session);
        }
    }
}

/// What this process is called: a machine since it was started, with the processes that it shows; a process; when that began.
pub(crate) fn own() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    let machine = Sha256::digest(format!("{} {}", boot.trim(), space.display()));
    let machine = hex::encode(machine.first_chunk::<8>()?);
    let (pid, Some(began)) = stat("self")? else { return None };
    Some(format!("{machine} {pid} {began}"))
}

/// Whether the process that opened a session is gone, or has given the session up. False where nobody can tell.
pub(crate) fn is_gone(process: &str, session: SnapshotId) -> bool {
    let Some(own) = own() else { return false };
    if own == process {
        return !open().contains_key(&session);
    }
    let parts = |text: &'_ str| -> Option<(String, String, String)> {
        let mut parts = text.split(' ').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.next()?))
    };
    let (Some((here, ..)), Some((machine, pid, began))) = (parts(&own), parts(process)) else { return false };
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
        let session = SnapshotId::from_bytes([0x5a; 16]);
        let own = own().unwrap();
        let [machine, pid, began] = own.split(' ').collect::<Vec<_>>()[..] else { panic!("{own}") };
        assert!(is_gone(&own, session), "it has no such session");
        begin(session);
        assert!(!is_gone(&own, session));
        // Somebody else here who wanted it, and did not get it.
        begin(session);
        end(session);
        assert!(!is_gone(&own, session), "the first one still has it");
        end(session);
        assert!(is_gone(&own, session));
        assert!(is_gone(&format!("{machine} {pid} {began}1"), session), "the number was given to another");
        assert!(!is_gone(&format!("0{machine} {pid} {began}1"), session), "another machine");
        for odd in ["", " ", "  ", machine, &format!("{machine} ../1 {began}"), &format!("{machine} {pid}")] {
            assert!(!is_gone(odd, session), "{odd:?}");
        }

        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let (number, began) = stat(&child.id().to_string()).unwrap();
        let name = format!("{machine} {number} {}", began.unwrap());
        assert!(!is_gone(&name, session));
        child.kill().unwrap();
        // Until it is waited for it is there, and has ended.
        while stat(&number).is_none_or(|(_, began)| began.is_some()) {
            std::thread::yield_now();
        }
        assert!(is_gone(&name, session));
        child.wait().unwrap();
        assert!(is_gone(&name, session));
    }
}
