//! Names of views: by them it is known whose they are, and whether their process still lives.

use std::sync::atomic::{AtomicU64, Ordering};

/// What all names begin with.
pub(crate) const PREFIX: &str = "backup-view-";

static TAKEN: AtomicU64 = AtomicU64::new(0);

/// A name for a view of this process: the machine's start, the process and its start, and a number.
pub(super) fn fresh() -> String {
    let pid = std::process::id();
    let started = started(pid).unwrap_or_default();
    let number = TAKEN.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{pid}-{started}-{number}", boot())
}

/// Whether a name is that of a view whose process has ended. Processes beyond this one's view of them (in another
/// container) count as ended: such must not take views of the same directory.
pub(super) fn is_left_behind(name: &str) -> bool {
    let Some(parts) = name.strip_prefix(PREFIX) else { return false };
    let parts: Vec<&str> = parts.split('-').collect();
    let [of_boot, pid, of_start, number] = parts.as_slice() else { return false };
    let (Ok(pid), Ok(of_start), Ok(_)) = (pid.parse(), of_start.parse::<u64>(), number.parse::<u64>()) else {
        return false;
    };
    *of_boot != boot() || started(pid) != Some(of_start)
}

/// Some digits of what tells this start of the machine from others.
fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    if digits.is_empty() { "0".into() } else { digits }
}

/// When a process was started, in ticks since the machine was (proc(5), field 22 of `stat`).
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may hold anything.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_living_are_theirs_and_others_left_behind() {
        let (mine, another) = (fresh(), fresh());
        assert_ne!(mine, another);
        assert!(!is_left_behind(&mine));
        let pid = std::process::id();
        let start = started(pid).unwrap();
        assert!(
            is_left_behind(&format!("{PREFIX}00000000-{pid}-{start}-0")),
            "of an earlier start of the machine"
        );
        assert!(
            is_left_behind(&format!("{PREFIX}{}-{pid}-{}-0", boot(), start + 1)),
            "of another with this number"
        );
        assert!(is_left_behind(&format!("{PREFIX}{}-4194999-7-0", boot())), "of a process that has ended");
        for other in
            ["", "home", "backup-view-", "backup-view-mine", "backup-view-0-1-2", "backup-view-0-1-2-3-4"]
        {
            assert!(!is_left_behind(other), "{other} is not ours to delete");
        }
    }
}
