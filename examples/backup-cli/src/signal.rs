//! Ctrl-C, SIGTERM and SIGHUP: the first ends the job in good order, the second ends the process.

use backup_core::CancellationToken;

/// Cancels `token` at the first signal and exits at the second. Runs until the process ends.
pub(crate) async fn watch(token: CancellationToken) {
    if wait().await.is_err() {
        // Without signal handling the system's default applies: the process ends at once.
        return;
    }
    eprintln_quietly("stopping; press Ctrl-C again to stop at once");
    token.cancel();
    let _ = wait().await;
    std::process::exit(i32::from(crate::exit::failed().code()));
}

#[cfg(unix)]
async fn wait() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    // What was to be ignored stays so: `nohup` ignores the hangup, a shell the Ctrl-C of what runs in the background.
    let ignored = ignored();
    let listen = |kind: SignalKind| -> std::io::Result<_> {
        Ok(if is_in(ignored, kind.as_raw_value()) { None } else { Some(signal(kind)?) })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = received(&mut interrupt) => Ok(()),
        _ = received(&mut terminate) => Ok(()),
        _ = received(&mut hangup) => Ok(()),
    }
}

#[cfg(unix)]
async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that this process was started to ignore, as bits; none where the system does not tell.
#[cfg(unix)]
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    bits.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(unix)]
fn is_in(signals: u64, number: i32) -> bool {
    let bit = number.checked_sub(1).and_then(|bit| u32::try_from(bit).ok());
    bit.and_then(|bit| signals.checked_shr(bit)).is_some_and(|shifted| shifted & 1 == 1)
}

#[cfg(not(unix))]
async fn wait() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

fn eprintln_quietly(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
