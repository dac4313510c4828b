//! A program that reads what comes from a repository.

use std::io;

use backup_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::command::Call;
use crate::command::process::Output;

/// Bytes that are read at once, and wait to be written.
const PIECE_BYTES: usize = 256 * 1024;

/// Runs a program to its end, which must be a good one, with `content` as its input.
///
/// If the content cannot be read, the program is killed before it can take what it got for all. Cancellation: dropping the future kills it.
pub(super) async fn feed(call: Call, content: impl AsyncRead + Unpin) -> Result<()> {
    let failed = |error: io::Error| Error::io("a pipe to the program cannot be made", error);
    let (sender, receiver) = pipe::pipe().map_err(failed)?;
    let mut output = Output::fed(call, receiver.into_blocking_fd().map_err(failed)?);
    let stopped = {
        let draining = drain(&mut output);
        let pouring = pour(content, sender);
        tokio::pin!(draining, pouring);
        tokio::select! {
            // One that has all that it needs does not read the rest.
            ended = &mut draining => return ended,
            poured = &mut pouring => match poured {
                Ok(()) => return draining.await,
                Err(stopped) => stopped,
            },
        }
    };
    let (error, sender) = stopped;
    output.stop().await;
    drop(sender);
    Err(error)
}

/// Runs a program without input to its end, which must be a good one.
pub(super) async fn run(call: Call) -> Result<()> {
    drain(&mut Output::of(call)).await
}

async fn drain(output: &mut Output) -> Result<()> {
    let mut said = [0; 4096];
    loop {
        match output.read(&mut said).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(Error::new(ErrorKind::Io, error.to_string())),
        }
    }
}

/// Writes all of `content`, and closes. Where it breaks off, the end that is not closed comes back.
async fn pour(
    mut content: impl AsyncRead + Unpin,
    mut sender: pipe::Sender,
) -> std::result::Result<(), (Error, pipe::Sender)> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let len = match content.read(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) => return Err((Error::from(error), sender)),
        };
        match sender.write_all(piece.get(..len).unwrap_or_default()).await {
            Ok(()) => {}
            // Why nobody reads any more, the exit status says.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err((Error::io("the program cannot be written to", error), sender)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    fn call(script: String) -> Call {
        let arguments = vec!["-c".into(), script.into()];
        Call { program: "sh".into(), arguments, environment: Vec::new(), without: None, timeout: None }
    }

    /// A megabyte, and then damage.
    struct Damaged(usize);

    impl AsyncRead for Damaged {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.0 == 0 {
                return Poll::Ready(Err(Error::corruption("a chunk is damaged").into()));
            }
            let len = buffer.remaining().min(self.0);
            buffer.put_slice(&vec![7; len]);
            self.0 -= len;
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_program_gets_all_and_its_exit_status_counts() {
        let directory = tempfile::tempdir().unwrap();
        let got = directory.path().join("got");
        let content = vec![5; 3_000_000];
        feed(call(format!("cat >'{}'", got.display())), &content[..]).await.unwrap();
        assert_eq!(std::fs::read(&got).unwrap(), content);
        feed(call("head -c 10 >/dev/null".into()), &content[..]).await.unwrap();
        let error =
            feed(call("cat >/dev/null; echo broken >&2; exit 1".into()), &content[..]).await.unwrap_err();
        assert!(error.to_string().contains("exit status 1; it wrote: broken"), "{error}");
    }

    #[tokio::test]
    async fn a_program_whose_input_is_damaged_never_sees_an_end_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let done = directory.path().join("done");
        let script = format!("cat >/dev/null; echo >'{}'", done.display());
        // Whoever closed its input before it was killed would be found out sooner or later.
        for _ in 0..10 {
            let error = feed(call(script.clone()), Damaged(1 << 20)).await.unwrap_err();
            assert!(error.is_corruption() || error.to_string().contains("damaged"), "{error}");
            assert!(!done.exists());
        }
    }
}
