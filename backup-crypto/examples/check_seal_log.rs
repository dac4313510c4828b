//! Reads a seal log (see the feature `seal-log`), prints how many seals it holds and fails if a key ever sealed two
//! things with one nonce, or if the log is empty or cut short.
//!
//! ```text
//! BACKUP_SEAL_LOG=/tmp/seals cargo test --features seal-log
//! cargo run --example check_seal_log -- /tmp/seals
//! ```

use std::collections::HashSet;
use std::process::ExitCode;

const RECORD_BYTES: usize = 44;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: check_seal_log FILE");
        return ExitCode::from(2);
    };
    let verdict = std::fs::read(&path).map_err(|e| e.to_string()).and_then(|log| check(&log));
    match verdict {
        Ok(seals) => {
            println!("{seals} seals, each with a (key, nonce) of its own");
            ExitCode::SUCCESS
        }
        Err(what) => {
            eprintln!("{}: {what}", path.display());
            ExitCode::FAILURE
        }
    }
}

/// The number of seals in `log`, or what is wrong with it.
fn check(log: &[u8]) -> Result<usize, String> {
    let (records, rest) = log.as_chunks::<RECORD_BYTES>();
    if !rest.is_empty() {
        return Err(format!("{} bytes are not whole records of {RECORD_BYTES}", log.len()));
    }
    if records.is_empty() {
        return Err("the log is empty: were the tests built with the feature `seal-log`?".to_owned());
    }
    let distinct: HashSet<_> = records.iter().collect();
    match records.len().saturating_sub(distinct.len()) {
        0 => Ok(records.len()),
        repeats => Err(format!("{repeats} of {} seals repeat an earlier (key, nonce)", records.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_emptiness_and_cut_records_are_told() {
        let (a, b) = ([1; RECORD_BYTES], [2; RECORD_BYTES]);
        assert_eq!(check(&[a, b].concat()), Ok(2));
        assert!(check(&[a, b, a].concat()).unwrap_err().contains("repeat"));
        assert!(check(&[]).unwrap_err().contains("empty"));
        assert!(check(&[1; RECORD_BYTES + 1]).unwrap_err().contains("whole"));
    }
}
