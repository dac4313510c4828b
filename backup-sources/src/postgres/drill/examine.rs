//! What PostgreSQL's own programs say of a restored cluster.

use std::ffi::OsStr;

use super::report::Examination;
use crate::postgres::recovery::{Programs, Recovered, Server};

/// Compares all files with the manifest that the base backup brought.
pub(super) async fn files(programs: &Programs, recovered: &Recovered, map_was_changed: bool) -> Examination {
    if !programs.has("pg_verifybackup") {
        return Examination::not_done("`pg_verifybackup` is not installed");
    }
    if !recovered.data.join("backup_manifest").is_file() {
        return Examination::not_done("the base backup has no `backup_manifest`");
    }
    let mut arguments: Vec<&OsStr> = vec!["--no-parse-wal".as_ref(), "--quiet".as_ref()];
    if map_was_changed {
        // Where tablespaces are is what a recovery elsewhere must change.
        arguments.push("--ignore=tablespace_map".as_ref());
    }
    arguments.push(recovered.data.as_os_str());
    match programs.run("pg_verifybackup", recovered.owner, &arguments).await {
        Ok(_) => Examination::Passed,
        Err(error) => Examination::Failed { why: error.to_string() },
    }
}

/// Looks at all tables and indexes of all databases, as far as the cluster has the extension `amcheck` or can get it.
pub(super) async fn relations(server: &Server, writable: bool) -> Examination {
    let programs = server.programs();
    if !programs.has("pg_amcheck") {
        return Examination::not_done("`pg_amcheck` is not installed");
    }
    let mut amcheck = programs.command("pg_amcheck", server.owner());
    amcheck.args(["--all", "--jobs=2", "--username"]).arg(server.role()).arg("--host").arg(server.socket());
    amcheck.arg("--port").arg(server.port().to_string()).arg("--no-password");
    if writable {
        // Into the rehearsed cluster only, which is thrown away.
        amcheck.arg("--install-missing").env("PGOPTIONS", "-c default_transaction_read_only=off");
    }
    let output = match amcheck.output().await {
        Ok(output) => output,
        Err(error) => return Examination::not_done(format!("`pg_amcheck` cannot be started: {error}")),
    };
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    judge(output.status.code(), &said)
}

/// What `pg_amcheck` has shown, by its exit status and by what it said.
fn judge(status: Option<i32>, said: &str) -> Examination {
    let skipped = said.contains("amcheck is not installed");
    // All of it is looked at, and the beginning told: there is a line for each database.
    let nothing =
        said.contains("no relations to check") || said.contains("extension \"amcheck\" is not available");
    let told: String = said.trim().chars().take(2000).collect();
    match status {
        Some(0) if skipped => {
            Examination::not_done("not every database has the extension `amcheck`: ".to_owned() + &told)
        }
        Some(0) => Examination::Passed,
        // It found something, which is what it ends with 2 for.
        Some(2) => Examination::Failed { why: told },
        // That some databases were passed over says nothing of why it gave up on another one: its server may have crashed there.
        Some(1) if nothing => Examination::not_done("no database has the extension `amcheck`"),
        _ => {
            let status = status.map_or_else(|| "killed".to_owned(), |status| format!("exit status {status}"));
            Examination::Failed { why: format!("`pg_amcheck` failed ({status}): {told}") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_a_database_is_passed_over_hides_nothing_of_another_one() {
        let skipped = "pg_amcheck: warning: skipping database \"postgres\": amcheck is not installed\n";
        let done = |status, said: &str| match judge(status, said) {
            Examination::Passed => "passed",
            Examination::Failed { .. } => "failed",
            Examination::NotDone { .. } => "not done",
        };
        assert_eq!(done(Some(0), ""), "passed");
        assert_eq!(done(Some(0), skipped), "not done");
        assert_eq!(done(Some(2), skipped), "failed");
        let none = format!("{}pg_amcheck: error: no relations to check\n", skipped.repeat(100));
        assert_eq!(done(Some(1), &none), "not done");
        let missing = "pg_amcheck: error: query failed: ERROR:  extension \"amcheck\" is not available\n";
        assert_eq!(done(Some(1), missing), "not done");
        let crashed = format!("{skipped}pg_amcheck: error: server closed the connection unexpectedly\n");
        assert_eq!(done(Some(1), &crashed), "failed");
        assert_eq!(done(None, skipped), "failed");
    }
}
