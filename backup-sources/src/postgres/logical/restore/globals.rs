//! Roles and tablespaces: told apart, statement by statement, and given to the server when that is asked for.

use std::collections::BTreeSet;

use backup_core::{EntryName, Error, ErrorKind, JobContext, Result, Snapshot};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::LogicalRestore;
use crate::postgres::connect::explain;
use crate::postgres::logical::LogicalBackup;

/// Longest script of roles and tablespaces that is read.
const SCRIPT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A statement of a script of roles and tablespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The statement. It may have the hash of a password: show it to nobody who may not see those.
    pub sql: String,
    /// Whom or what it makes or changes: `role NAME`, `tablespace NAME`; none for all else, as memberships and settings of the session.
    pub subject: Option<String>,
}

/// What became of roles and tablespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalsReport {
    /// How many statements were done.
    pub done: u64,
    /// What was there already, and is as it was: `role postgres`.
    pub kept: Vec<String>,
    /// What could not be done, and why, without any secret.
    pub failed: Vec<String>,
}

/// The statements of a script of `pg_dumpall --globals-only`.
///
/// The script is not given to `psql`, for which a line of it could be a command: what is no statement is refused, but for the tokens
/// (`\restrict`) that keep `psql` from that.
///
/// # Errors
///
/// A command for `psql`, or a quote that is not closed.
pub fn statements(script: &str) -> Result<Vec<Statement>> {
    let mut statements = Vec::new();
    let mut sql = String::new();
    let mut rest = script;
    while let Some(first) = rest.chars().next() {
        let token = match first {
            '-' if rest.starts_with("--") => {
                rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
                sql.push('\n');
                continue;
            }
            '\\' => {
                let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
                if !sql.trim().is_empty()
                    || !(line.starts_with("\\restrict ") || line.starts_with("\\unrestrict "))
                {
                    let message = "the script of roles and tablespaces has a command for psql: look at it before anybody runs it";
                    return Err(Error::invalid_input(message));
                }
                rest = after;
                continue;
            }
            '\'' | '"' => quoted(rest, first, first == '\'' && is_escaping(&sql)),
            other => rest.get(..other.len_utf8()),
        };
        let token = token.ok_or_else(|| {
            Error::invalid_input("the script of roles and tablespaces ends within quotes: it is not whole")
        })?;
        rest = rest.get(token.len()..).unwrap_or_default();
        sql.push_str(token);
        if first == ';' {
            let statement = std::mem::take(&mut sql).trim().to_owned();
            statements.push(Statement { subject: subject(&statement), sql: statement });
        }
    }
    match sql.trim().is_empty() {
        true => Ok(statements),
        false => Err(Error::invalid_input(
            "the script of roles and tablespaces ends within a statement: it is not whole",
        )),
    }
}

/// A script without the random token that keeps `psql` from running commands in it: of equal clusters, this is equal.
///
/// ```
/// use backup_sources::postgres::logical::restore::without_token;
///
/// let (monday, tuesday) = ("\\restrict aX\nCREATE ROLE shop;\n\\unrestrict aX\n", "\\restrict b7\nCREATE ROLE shop;\n\\unrestrict b7\n");
/// assert_eq!(without_token(monday), without_token(tuesday));
/// ```
pub fn without_token(script: &str) -> String {
    let is_token = |line: &&str| line.starts_with("\\restrict ") || line.starts_with("\\unrestrict ");
    script.split_inclusive('\n').filter(|line| !is_token(line)).collect()
}

/// What stands in quotes at the beginning, quotes included; none if they are not closed.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<&str> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && escapes {
            characters.next();
        } else if character == quote {
            match characters.peek() {
                Some((_, next)) if *next == quote => {
                    characters.next();
                }
                _ => return text.get(..at.checked_add(1)?),
            }
        }
    }
    None
}

/// Whether a string that begins now is one in which a backslash means something.
fn is_escaping(before: &str) -> bool {
    let mut characters = before.chars().rev();
    let is_e = matches!(characters.next(), Some('E' | 'e'));
    is_e && !characters.next().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn subject(statement: &str) -> Option<String> {
    const SUBJECTS: [(&str, &str); 6] = [
        ("CREATE ROLE ", "role"),
        ("ALTER ROLE ", "role"),
        ("COMMENT ON ROLE ", "role"),
        ("CREATE TABLESPACE ", "tablespace"),
        ("ALTER TABLESPACE ", "tablespace"),
        ("COMMENT ON TABLESPACE ", "tablespace"),
    ];
    let (kind, rest) =
        SUBJECTS.iter().find_map(|(start, kind)| Some((kind, statement.strip_prefix(start)?)))?;
    let name = match rest.starts_with('"') {
        true => {
            let quoted = quoted(rest, '"', false)?;
            quoted.get(1..quoted.len().checked_sub(1)?)?.replace("\"\"", "\"")
        }
        false => rest.split([' ', ';']).next()?.to_owned(),
    };
    Some(format!("{kind} {name}"))
}

impl LogicalRestore {
    /// The script of roles and tablespaces in a logical backup, to be read by a person.
    ///
    /// # Errors
    ///
    /// The backup has none; it cannot be read, or is no text.
    pub async fn globals(&self, snapshot: &Snapshot, job: &JobContext) -> Result<String> {
        let backup = LogicalBackup::of(snapshot.info())?;
        let missing = || {
            let message = format!("the backup {} has no roles and tablespaces", backup.id);
            Error::new(ErrorKind::NotFound, message)
        };
        let name = EntryName::new(backup.globals_entry().ok_or_else(missing)?)?;
        let stored = snapshot.entry(&name, job).await?.ok_or_else(missing)?;
        let content = snapshot.open(&stored, job).await?;
        if content.len() > SCRIPT_BYTES_MAX {
            let message = format!("it is longer than {SCRIPT_BYTES_MAX} bytes");
            return Err(Error::new(ErrorKind::LimitExceeded, message).with_entry(&name));
        }
        let mut script = String::new();
        content.take(SCRIPT_BYTES_MAX).read_to_string(&mut script).await?;
        Ok(script)
    }

    /// Makes the roles and tablespaces of a logical backup that are not on the server, with their settings, passwords and memberships. What is there
    /// stays as it is, the password of a superuser above all. One statement after the other: what fails keeps nobody from the rest, and is
    /// reported.
    ///
    /// # Errors
    ///
    /// As [`globals`](Self::globals) and [`statements`]; the connection fails.
    pub async fn apply_globals(&self, snapshot: &Snapshot, job: &JobContext) -> Result<GlobalsReport> {
        const THERE: &str = "SELECT 'role ' || rolname FROM pg_catalog.pg_roles \
             UNION ALL SELECT 'tablespace ' || spcname FROM pg_catalog.pg_tablespace";
        let statements = statements(&self.globals(snapshot, job).await?)?;
        let client = self.connect.connect_to_ask().await?;
        let rows = client.query(THERE, &[]).await.map_err(|error| explain(&error))?;
        let there: std::result::Result<BTreeSet<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let there = there.map_err(|error| explain(&error))?;
        let mut report = GlobalsReport::default();
        for statement in statements {
            job.check()?;
            if let Some(subject) = statement.subject.as_ref().filter(|subject| there.contains(*subject)) {
                if !report.kept.contains(subject) {
                    report.kept.push(subject.clone());
                }
                continue;
            }
            match client.batch_execute(&statement.sql).await.map_err(|error| explain(&error)) {
                Ok(()) => report.done = report.done.saturating_add(1),
                Err(error) if client.is_closed() => return Err(error),
                Err(error) => {
                    let what = statement.subject.as_deref().unwrap_or("a membership, privilege or setting");
                    report.failed.push(format!("{}: {error}", what.escape_debug()));
                }
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_taken_apart_as_the_server_reads_it() {
        let script = "--\n-- it's a comment; \\! touch x\n\\restrict abc\nSET standard_conforming_strings = on;\n\
            CREATE ROLE \"odd;\n\\! touch x\"\"y\";\nALTER ROLE u WITH PASSWORD 'SCRAM-SHA-256$4096:a;b''c';\n\
            COMMENT ON ROLE u IS E'back\\\\slash\\';\\n\\\\! touch x';\nGRANT a TO b;\n\\unrestrict abc\n-- done";
        let found = statements(script).unwrap();
        let subjects: Vec<_> = found.iter().map(|statement| statement.subject.as_deref()).collect();
        assert_eq!(subjects, [None, Some("role odd;\n\\! touch x\"y"), Some("role u"), Some("role u"), None]);
        assert_eq!(found[2].sql, "ALTER ROLE u WITH PASSWORD 'SCRAM-SHA-256$4096:a;b''c';");
    }

    #[test]
    fn trap_40_commands_for_psql_are_refused_and_never_run() {
        for script in [
            "\\! touch x\n",
            "CREATE ROLE a;\n\\connect b\n",
            "CREATE ROLE a \\gexec\n",
            "\\restrict a\n\\copy x\n",
        ] {
            let error = statements(script).unwrap_err();
            assert!(error.to_string().contains("a command for psql"), "{error}");
        }
        assert!(statements("CREATE ROLE \"a;").is_err());
        assert!(statements("CREATE ROLE a").is_err());
    }

    #[test]
    fn trap_45_equal_scripts_differ_by_their_token_alone() {
        let script =
            |token: &str| format!("-- x\n\n\\restrict {token}\n\nCREATE ROLE a;\n\n\\unrestrict {token}\n\n");
        assert_ne!(script("a"), script("b"));
        assert_eq!(without_token(&script("a")), without_token(&script("b")));
        assert_ne!(without_token(&script("a")), without_token(&script("a").replace("ROLE a", "ROLE b")));
    }
}
