//! Commands around a job: stop a service, switch maintenance on, start it again.

use std::process::Stdio;
use std::time::Duration;

use backup_core::config::Argv;
use backup_core::{Error, ErrorKind, Result};
use tokio::process::Command;

/// How long a command may take where nothing else is said.
pub const TIME_DEFAULT: Duration = Duration::from_secs(3600);

/// Runs a command without a shell, for at most `time`. What it prints goes to standard error, since standard output belongs to
/// the result. Dropping the future kills it.
///
/// # Errors
/// It cannot be started, fails or takes too long; the message names the program, not its arguments, which may be
/// confidential.
pub async fn run(argv: &Argv, time: Duration) -> Result<()> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Error::invalid_input("a command is empty"));
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(standard_error()?)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::io(format!("the command `{program}` cannot be started"), e))?;
    match tokio::time::timeout(time, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Error::new(ErrorKind::Io, format!("the command `{program}` failed: {status}"))),
        Ok(Err(e)) => Err(Error::io(format!("the command `{program}` cannot be waited for"), e)),
        Err(_) => {
            // It is killed when dropped, too; here it is also waited for.
            let _ = child.kill().await;
            let message = format!("the command `{program}` did not end within {} s", time.as_secs());
            Err(Error::new(ErrorKind::LimitExceeded, message))
        }
    }
}

#[cfg(unix)]
fn standard_error() -> Result<Stdio> {
    use std::os::fd::AsFd;
    Ok(std::io::stderr().as_fd().try_clone_to_owned()?.into())
}

#[cfg(not(unix))]
fn standard_error() -> Result<Stdio> {
    Ok(Stdio::null())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn argv(words: &[&str]) -> Argv {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[tokio::test]
    async fn commands_that_fail_hang_or_are_missing_are_errors() {
        let time = Duration::from_secs(20);
        run(&argv(&["true"]), time).await.unwrap();
        assert!(run(&argv(&["false"]), time).await.unwrap_err().to_string().contains("`false` failed"));
        let missing = run(&argv(&["no-such-program", "hunter2"]), time).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(!missing.to_string().contains("hunter2"));
        let slow = run(&argv(&["sleep", "60"]), Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(slow.kind(), ErrorKind::LimitExceeded);
        assert!(run(&argv(&[]), time).await.is_err());
    }
}
