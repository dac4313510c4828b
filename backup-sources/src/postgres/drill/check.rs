//! What a drill asks of a recovered cluster, and what the answers should be.

use std::time::Duration;

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::postgres::recovery::Server;

/// Rows that a check may return; more are an error, as nobody would read them.
const ROWS_MAX: usize = 10_000;

/// How values are written as text: the same wherever a question is asked.
const SESSION: [(&str, &str); 8] = [
    ("search_path", "pg_catalog"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("client_encoding", "UTF8"),
    ("xmloption", "content"),
];

/// A question and its answer.
///
/// ```
/// use backup_sources::postgres::drill::{Check, Expect};
///
/// let check = Check::new("orders are there", "shop", "select count(*) > 1000 from public.orders", Expect::value("t"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What the check is called in reports.
    pub name: String,
    /// The database that is asked.
    pub database: String,
    /// The question. Tables need their schemas; the transaction is read-only.
    pub query: String,
    /// The answer.
    pub expect: Expect,
}

/// What is expected of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// These rows, as text; none for NULL.
    Rows(Vec<Vec<Option<String>>>),
    /// At least one row.
    Some,
    /// No row.
    Nothing,
    /// Any answer: that there is one is enough.
    Anything,
}

impl Expect {
    /// One row of one column.
    pub fn value(text: impl Into<String>) -> Self {
        Self::Rows(vec![vec![Some(text.into())]])
    }

    fn fits(&self, rows: &[Vec<Option<String>>]) -> bool {
        match self {
            Self::Rows(expected) => expected == rows,
            Self::Some => !rows.is_empty(),
            Self::Nothing => rows.is_empty(),
            Self::Anything => true,
        }
    }
}

impl Check {
    /// A question to a database and its answer.
    pub fn new(
        name: impl Into<String>,
        database: impl Into<String>,
        query: impl Into<String>,
        expect: Expect,
    ) -> Self {
        Self { name: name.into(), database: database.into(), query: query.into(), expect }
    }

    /// That a table has as many rows as were recorded, and the same.
    pub fn table(recorded: &RecordedTable) -> Self {
        let name = format!("{}.{}.{}", recorded.database, recorded.schema, recorded.table);
        let expect =
            Expect::Rows(vec![vec![Some(recorded.rows.to_string()), Some(recorded.checksum.clone())]]);
        Self::new(name, recorded.database.clone(), table_query(&recorded.schema, &recorded.table), expect)
    }

    /// Asks, and says how the answer differs, if it does.
    pub(super) async fn ask(&self, server: &Server, limit: Duration) -> CheckResult {
        let started = std::time::Instant::now();
        let timeout = limit.as_millis().min(u128::from(u32::MAX)).to_string();
        let mut session = SESSION.to_vec();
        session.extend([
            ("default_transaction_read_only", "on"),
            ("statement_timeout", timeout.as_str()),
            ("lock_timeout", timeout.as_str()),
            // A standby must not wait for replay that is paused.
            ("standard_conforming_strings", "on"),
        ]);
        let answer = server.query(&self.database, &session, &self.query).await;
        let why = match answer {
            Ok(rows) if rows.len() > ROWS_MAX => {
                Some(format!("it returned {} rows, which are too many", rows.len()))
            }
            Ok(rows) if self.expect.fits(&rows) => None,
            Ok(rows) => {
                Some(format!("expected {}, found {}", shown(&self.expect), shown(&Expect::Rows(rows))))
            }
            Err(error) => Some(error.to_string()),
        };
        CheckResult {
            name: self.name.clone(),
            database: self.database.clone(),
            passed: why.is_none(),
            why,
            duration: started.elapsed(),
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// What it is called.
    pub name: String,
    /// The database that was asked.
    pub database: String,
    /// Whether the answer was the expected one.
    pub passed: bool,
    /// If not, why.
    pub why: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

/// How many rows a table had, and a checksum over all of them whatever their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedTable {
    /// The database.
    pub database: String,
    /// The schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Rows.
    pub rows: u64,
    /// The sum of the hashes of all rows as text.
    pub checksum: String,
}

impl RecordedTable {
    /// The question whose answer is recorded, two columns in one row, for whoever asks on a connection of their own. What it tells is of
    /// the moment at which it is asked: where a drill is to find the same, nobody may have written between that and its target.
    ///
    /// The session must have the settings that [`session`](Self::session) gives, or values are written as other text.
    pub fn query(schema: &str, table: &str) -> String {
        table_query(schema, table)
    }

    /// Statements that set up a session so that values are always written as the same text.
    pub fn session() -> Vec<String> {
        SESSION.iter().map(|(name, value)| format!("set {name} = '{value}'")).collect()
    }

    /// A table's name as SQL has it.
    pub(super) fn qualified(schema: &str, table: &str) -> String {
        format!("{}.{}", identifier(schema), identifier(table))
    }

    /// What a server that is reached through its socket has now.
    ///
    /// # Errors
    ///
    /// The server cannot be asked.
    pub async fn of(server: &Server, database: &str, schema: &str, table: &str) -> Result<Self> {
        let rows = server.query(database, &SESSION, &table_query(schema, table)).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let mut columns = row.into_iter().flatten();
        let answer = columns.next().and_then(|rows| rows.parse().ok()).zip(columns.next());
        let (rows, checksum) = answer.ok_or_else(|| Error::internal("a count of rows is no number"))?;
        Ok(Self { database: database.into(), schema: schema.into(), table: table.into(), rows, checksum })
    }
}

fn table_query(schema: &str, table: &str) -> String {
    let table = RecordedTable::qualified(schema, table);
    format!(
        "select pg_catalog.count(*)::text, \
         coalesce(pg_catalog.sum(pg_catalog.hashtextextended(t::text, 0)::numeric), 0)::text from {table} t"
    )
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An expectation in few words.
fn shown(expect: &Expect) -> String {
    let text = match expect {
        Expect::Rows(rows) => {
            let null = || "NULL".to_owned();
            let row = |row: &Vec<Option<String>>| {
                let columns: Vec<String> =
                    row.iter().map(|column| column.clone().unwrap_or_else(null)).collect();
                columns.join("|")
            };
            let rows: Vec<String> = rows.iter().take(20).map(row).collect();
            format!("`{}`", rows.join("; "))
        }
        Expect::Some => "at least a row".to_owned(),
        Expect::Nothing => "no row".to_owned(),
        Expect::Anything => "anything".to_owned(),
    };
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_as_text() {
        let row = |text: &str| vec![vec![Some(text.to_owned())]];
        assert!(Expect::value("1").fits(&row("1")));
        assert!(!Expect::value("1").fits(&row("1.0")));
        assert!(!Expect::value("").fits(&[vec![None]]));
        assert!(Expect::Some.fits(&row("")) && !Expect::Some.fits(&[]));
        assert!(Expect::Nothing.fits(&[]) && Expect::Anything.fits(&[]));
        assert_eq!(shown(&Expect::Rows(vec![vec![None, Some("a".into())], vec![]])), "`NULL|a; `");
        assert!(table_query("a\"b", "c").ends_with(r#"from "a""b"."c" t"#));
    }
}
