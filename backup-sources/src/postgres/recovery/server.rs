//! A server on a directory: starting, stopping, asking it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use tokio::net::UnixStream;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::living::running_server;
use super::{Programs, Recovered};
use crate::postgres::connect::explain;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How much of the end of the log an error tells.
const LOG_BYTES: u64 = 64 * 1024;
/// Bytes that the path of a socket may have, less what the server adds to its directory's.
const SOCKET_BYTES_MAX: usize = 107 - ".s.PGSQL.12345".len() - 1;

/// A server on a data directory, reached through a socket beside which nobody else's is.
///
/// It is started as the user to whom the directory belongs, where this process may choose: no server runs as root.
#[derive(Debug, Clone)]
pub struct Server {
    programs: Programs,
    data: PathBuf,
    owner: (u32, u32),
    socket: PathBuf,
    port: u16,
    log: PathBuf,
    settings: Vec<(String, String)>,
    user: String,
}

impl Server {
    /// The server of a recovered cluster. `socket` is a directory for its socket, which the server's user must be able to write to; the
    /// log is written there, too, as `server.log`.
    pub fn new(programs: Programs, recovered: &Recovered, socket: impl Into<PathBuf>, port: u16) -> Self {
        let socket = socket.into();
        Self {
            programs,
            data: recovered.data.clone(),
            owner: recovered.owner,
            log: socket.join("server.log"),
            socket,
            port,
            // What it says is to come where somebody looks.
            settings: vec![
                ("logging_collector".to_owned(), "off".to_owned()),
                ("log_destination".to_owned(), "stderr".to_owned()),
                ("log_min_messages".to_owned(), "info".to_owned()),
                ("lc_messages".to_owned(), "C".to_owned()),
            ],
            user: "postgres".to_owned(),
        }
    }

    /// The same with a setting for this start only, which wins over files.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// The same, asked as another role than `postgres`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// As whom it runs: user and group.
    pub fn owner(&self) -> (u32, u32) {
        self.owner
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The number in the name of its socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The role that asks it.
    pub fn role(&self) -> &str {
        &self.user
    }

    /// Starts it and returns at once; [`watch`](super::watch) tells what becomes of it.
    ///
    /// # Errors
    ///
    /// The process cannot be started.
    pub async fn start(&self) -> Result<()> {
        if self.socket.as_os_str().len() > SOCKET_BYTES_MAX {
            let message = format!("`{}` is too long for the path of a socket", self.socket.display());
            return Err(Error::invalid_input(message));
        }
        let mut options =
            format!("-c port={} -c unix_socket_directories={}", self.port, quoted(&self.socket)?);
        // What the cluster's own configuration calls so is where it was backed up: there, a server would start on other files.
        options.push_str(&format!(" -c data_directory={}", quoted(&self.data)?));
        for (name, value) in &self.settings {
            options.push_str(&format!(" -c {}", quoted(Path::new(&format!("{name}={value}")))?));
        }
        // What an earlier start has said must not be taken for what this one says.
        let former = self.log.with_extension("log.former");
        let _ = std::fs::rename(&self.log, former);
        let mut start = self.programs.command("pg_ctl", self.owner);
        start.args(["start", "--no-wait", "--silent", "-o", &options, "-l"]).arg(&self.log);
        start
            .arg("-D")
            .arg(&self.data)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let status = start.status().await.map_err(|error| Error::io("`pg_ctl` cannot be started", error))?;
        if status.success() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, format!("the server does not start: {}", self.complaint())))
    }

    /// Stops it, if it runs.
    ///
    /// # Errors
    ///
    /// It does not stop.
    pub async fn stop(&self) -> Result<()> {
        if !self.is_running()? {
            return Ok(());
        }
        let arguments: [OsString; 7] = [
            "stop".into(),
            "--wait".into(),
            "--silent".into(),
            "-m".into(),
            "fast".into(),
            "-D".into(),
            self.data.clone().into(),
        ];
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        match self.programs.run("pg_ctl", self.owner, &arguments).await {
            // It may have ended by itself meanwhile.
            Err(_) if !self.is_running()? => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Makes it a primary, when it is paused at its target or a standby.
    ///
    /// # Errors
    ///
    /// It does not become one.
    pub async fn promote(&self) -> Result<()> {
        let arguments: [OsString; 5] =
            ["promote".into(), "--wait".into(), "--silent".into(), "-D".into(), self.data.clone().into()];
        let arguments: Vec<&std::ffi::OsStr> = arguments.iter().map(OsString::as_os_str).collect();
        self.programs.run("pg_ctl", self.owner, &arguments).await.map(|_| ())
    }

    /// Whether its process is there.
    ///
    /// # Errors
    ///
    /// That cannot be told.
    pub fn is_running(&self) -> Result<bool> {
        Ok(running_server(&self.data)?.is_some())
    }

    /// What it has written since it was started, or the end of that.
    pub fn log(&self) -> String {
        use std::io::{Read, Seek, SeekFrom};
        let read = || {
            let mut file = std::fs::File::open(&self.log)?;
            let len = file.metadata()?.len();
            file.seek(SeekFrom::Start(len.saturating_sub(LOG_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LOG_BYTES).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }

    /// Why it gave up, by its log.
    pub fn complaint(&self) -> String {
        let log = self.log();
        let tells =
            |line: &&str| ["FATAL:", "PANIC:", "HINT:", "DETAIL:"].iter().any(|word| line.contains(word));
        let mut found: Vec<&str> = log.lines().filter(tells).collect();
        let from = found.len().saturating_sub(6);
        let last = found.split_off(from);
        match last.is_empty() {
            true => format!("its log `{}` does not say why", self.log.display()),
            false => last.join("\n"),
        }
    }

    /// The rows that a statement returns in a database, columns as text; none for NULL. The session gets `settings` first.
    ///
    /// # Errors
    ///
    /// The server cannot be reached ([`ErrorKind::Transient`]), does not let the role in ([`ErrorKind::Denied`]), or refuses the statement.
    pub async fn query(
        &self,
        database: &str,
        settings: &[(&str, &str)],
        statement: &str,
    ) -> Result<Vec<Vec<Option<String>>>> {
        let path = self.socket.join(format!(".s.PGSQL.{}", self.port));
        let unreachable = |why: String| {
            let message = format!("the server at `{}` cannot be reached: {why}", path.display());
            Error::new(ErrorKind::Transient, message)
        };
        let connect = async {
            let stream = UnixStream::connect(&path).await.map_err(|error| unreachable(error.to_string()))?;
            let mut config = tokio_postgres::Config::new();
            config.user(&self.user).dbname(database).application_name("backup");
            config.connect_raw(stream, NoTls).await.map_err(|error| match explain(&error).kind() {
                ErrorKind::Denied => {
                    let (role, why) = (self.user.escape_debug(), told(&error));
                    let message = format!(
                        "the server at `{}` does not let the role `{role}` in: {why}",
                        path.display()
                    );
                    Error::new(ErrorKind::Denied, message)
                }
                _ => unreachable(told(&error)),
            })
        };
        let connected = tokio::time::timeout(CONNECT, connect).await;
        let (client, connection) =
            connected.map_err(|_| unreachable(format!("no answer within {CONNECT:?}")))??;
        let talk = async {
            for (name, value) in settings {
                let set =
                    format!("select pg_catalog.set_config({}, {}, false)", literal(name), literal(value));
                client.simple_query(&set).await?;
            }
            client.simple_query(statement).await
        };
        // The connection ends with this future, however it ends.
        tokio::pin!(connection);
        let answer = tokio::select! {
            biased;
            answer = talk => answer,
            _ = &mut connection => return Err(unreachable("it closed the connection".to_owned())),
        };
        let messages = answer.map_err(|error| {
            Error::new(ErrorKind::Io, format!("the server refuses a statement: {}", told(&error)))
        })?;
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
        }
        Ok(rows)
    }

    /// The first column of the first row that a statement returns.
    pub(in crate::postgres) async fn value(&self, database: &str, statement: &str) -> Result<Option<String>> {
        let rows = self.query(database, &[], statement).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }
}

/// What an error of the driver says, with what the server told.
fn told(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} ({})", error.message(), error.code().code()),
        None => error.to_string(),
    }
}

/// A string in SQL, whatever `standard_conforming_strings` says.
pub(in crate::postgres) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// For a shell: `pg_ctl` gives the server's options to one.
fn quoted(text: &Path) -> Result<String> {
    let text = text.to_str().filter(|text| !text.contains(['\n', '\0']));
    let text =
        text.ok_or_else(|| Error::invalid_input("a name that is not UTF-8 cannot be given to a server"))?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}
