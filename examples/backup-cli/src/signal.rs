//! Ctrl-C and SIGTERM: the first ends the job in good order, the second ends the process.

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
    std::process::exit(i32::from(crate::exit::Exit::Failed.code()));
}

#[cfg(unix)]
async fn wait() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn wait() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}

fn eprintln_quietly(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
