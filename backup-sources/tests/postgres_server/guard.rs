//! What ends servers with the tests that started them.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A shell that waits until its input closes: when this is dropped, and also when this test is killed, alone or with its process group.
const SCRIPT: &str = r#"
exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
trap "" INT TERM HUP
read -r _
if read -r pid <"$1/postmaster.pid" && kill -QUIT "$pid"; then
    for _ in $(seq 100); do [ -e "$1/postmaster.pid" ] || break; sleep 0.05; done
    [ ! -e "$1/postmaster.pid" ] || kill -9 "$pid"
fi
[ -z "$2" ] || rm -rf "$2"
"#;

/// Ends the server of a data directory when it is dropped, and removes a directory then.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    pub fn new(data: &Path, remove: Option<&Path>) -> Self {
        let guard = Command::new("sh")
            .args(["-c", SCRIPT, "sh"])
            .args([data, remove.unwrap_or(Path::new(""))])
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(guard.unwrap())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}
