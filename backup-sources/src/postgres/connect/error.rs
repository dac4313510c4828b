//! What a server's failures mean here.

use std::error::Error as StdError;

use backup_core::{Error, ErrorKind};

/// An error of `tokio_postgres` as one of ours: its kind by the server's SQLSTATE, its message with detail and hint.
///
/// What a statement was is not in it, nor is any value.
pub fn explain(error: &tokio_postgres::Error) -> Error {
    if let Some(db) = error.as_db_error() {
        return of_state(db.code().code(), db.message(), db.detail(), db.hint());
    }
    let cause = StdError::source(error);
    if let Some(io) = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>()) {
        return Error::new(ErrorKind::Transient, format!("the connection to PostgreSQL failed: {io}"));
    }
    if error.is_closed() {
        return Error::new(ErrorKind::Transient, "the connection to PostgreSQL was closed");
    }
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    // `tokio_postgres` has no other mark for it than its words.
    let kind = match error.to_string() {
        text if text.starts_with("authentication error") || text.starts_with("invalid configuration") => {
            ErrorKind::Denied
        }
        text if text.starts_with("timeout") => ErrorKind::Transient,
        _ => ErrorKind::Io,
    };
    let text = error.to_string();
    let shown = if cause.is_empty() || text.contains(&cause) { text } else { format!("{text}{cause}") };
    Error::new(kind, format!("PostgreSQL: {shown}"))
}

/// What a server says, as an error; see the appendix "PostgreSQL Error Codes" of its manual.
pub(in crate::postgres) fn of_state(
    code: &str,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) -> Error {
    let mut text = format!("PostgreSQL says: {} (SQLSTATE {})", one_line(message), one_line(code));
    if let Some(detail) = detail {
        text.push_str(&format!("; {}", one_line(detail)));
    }
    if let Some(hint) = hint {
        text.push_str(&format!("; hint: {}", one_line(hint)));
    }
    Error::new(kind_of(code), text)
}

fn kind_of(code: &str) -> ErrorKind {
    match code {
        // A role, database, table, function, slot or file that does not exist.
        "3D000" | "42704" | "42P01" | "42883" | "58P01" => ErrorKind::NotFound,
        "42710" | "42P04" | "42P07" | "58P02" => ErrorKind::AlreadyExists,
        // Insufficient privilege.
        "42501" => ErrorKind::Denied,
        "53100" => ErrorKind::NoSpace,
        "XX001" | "XX002" => ErrorKind::Corruption,
        // A statement that timed out or was cancelled; a slot that somebody else uses.
        "57014" | "55006" | "55P03" | "40001" | "40P01" => ErrorKind::Transient,
        _ => match code.get(..2).unwrap_or_default() {
            // Connection exceptions, insufficient resources, a server that starts or stops.
            "08" | "53" | "57" => ErrorKind::Transient,
            "28" => ErrorKind::Denied,
            "0A" => ErrorKind::Unsupported,
            "22" | "42" | "55" => ErrorKind::InvalidInput,
            _ => ErrorKind::Io,
        },
    }
}

/// The beginning of what a server says, without what moves a cursor.
fn one_line(text: &str) -> String {
    let mut short: String = text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(500).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_kinds_that_callers_decide_by() {
        let kind = |code| of_state(code, "m", None, None).kind();
        assert_eq!(kind("28P01"), ErrorKind::Denied);
        assert_eq!(kind("57P03"), ErrorKind::Transient);
        assert_eq!(kind("53300"), ErrorKind::Transient);
        assert_eq!(kind("XX001"), ErrorKind::Corruption);
        assert_eq!(kind("42704"), ErrorKind::NotFound);
        assert_eq!(kind(""), ErrorKind::Io);
        let error = of_state("22023", "bad\u{1b}[2J\nvalue", Some("d"), Some("h"));
        assert_eq!(error.message(), "PostgreSQL says: bad [2J value (SQLSTATE 22023); d; hint: h");
    }
}
