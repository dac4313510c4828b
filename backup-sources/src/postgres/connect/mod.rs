//! Where a server is, and how one logs in there.
//!
//! What is said here follows the chapter "Database Connection Control Functions" of the PostgreSQL manual.

mod binding;
mod dial;
mod environment;
mod error;
mod libpq;
mod passfile;
mod settings;
mod tls;
mod uri;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use tokio_postgres::Client;

pub(in crate::postgres) use dial::Wire;
pub use error::explain;
pub(in crate::postgres) use error::of_state;
pub(in crate::postgres) use libpq::database_argument;

/// How long reaching a server, agreeing on TLS and logging in may take together, per address, unless `connect_timeout` says
/// otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Most servers that one [`Connect`] may name.
const HOSTS_MAX: usize = 32;

/// A server, a database and a user: all that `libpq` knows of them.
///
/// It is parsed from a URL (`postgres://user@host:5432/database?sslmode=verify-full`) or from `key=value` pairs. What it does not
/// say is taken from the environment: `PGHOST`, `PGHOSTADDR`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGPASSFILE`, `PGAPPNAME`, `PGOPTIONS`,
/// `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`, `PGCHANNELBINDING`, `PGCONNECT_TIMEOUT`, `PGTARGETSESSIONATTRS`; and a password
/// from `~/.pgpass`, which nobody but its owner may read. Without a host it is the socket in `/var/run/postgresql` or `/tmp`.
///
/// | `sslmode` | TLS | the server's certificate |
/// |---|---|---|
/// | `disable` | no | |
/// | `prefer` (the default), `allow` | if the server has it | is not looked at |
/// | `require` | yes | is not looked at, unless `sslrootcert` is given: then as with `verify-ca` |
/// | `verify-ca` | yes | is signed by `sslrootcert` |
/// | `verify-full` | yes | that, and its alternative names have the host |
///
/// `sslrootcert` is a file of PEM certificates, or `system` for those that the system trusts, which demands `verify-full`. A server's own certificate
/// in this file is trusted as it is. Over TLS, logging in with SCRAM is bound to the server's certificate where it can be
/// (`channel_binding`). A name in the certificate's common name only does not count.
///
/// Several hosts (`host=a,b`) are tried in turn, and `target_session_attrs` says which of them will do. Connecting takes at most
/// `connect_timeout` (15 seconds) for each address. A connection over which nothing comes back is given up by the system
/// after a minute or two. Passwords are neither shown nor serialized.
///
/// ```
/// use backup_sources::postgres::Connect;
///
/// let connect = Connect::parse("postgres://backup:secret@db.example:5433/app?sslmode=verify-full&sslrootcert=system")?;
/// assert_eq!(connect.to_string(), "postgres://backup@db.example:5433/app");
/// assert!(!format!("{connect:?}").contains("secret"));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Connect {
    hosts: Vec<Host>,
    user: String,
    database: String,
    password: Option<Secret>,
    passfile: Option<PathBuf>,
    application_name: String,
    options: Option<String>,
    connect_timeout: Duration,
    tls: TlsSettings,
    channel_binding: ChannelBinding,
    target: TargetSession,
}

/// Where one server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    at: At,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// The directory of a socket.
    Socket(PathBuf),
    /// A name, and an address if it is not to be looked up.
    Tcp(String, Option<std::net::IpAddr>),
}

/// A password. There is no way to see it but to send it.
#[derive(Clone, PartialEq, Eq)]
struct Secret(Arc<str>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// What is demanded of TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct TlsSettings {
    mode: SslMode,
    root: Option<RootCert>,
    /// Certificate and key of the client.
    client: Option<(PathBuf, PathBuf)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RootCert {
    System,
    File(PathBuf),
}

/// Whether a connection is encrypted, and whether the server must prove who it is: the words of `libpq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can. Protects against nobody who can alter what is sent.
    #[default]
    Prefer,
    /// Encrypted.
    Require,
    /// Encrypted, and the server's certificate is signed by somebody trusted.
    VerifyCa,
    /// The same, and the certificate is that of the host.
    VerifyFull,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum TargetSession {
    #[default]
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl Connect {
    /// From a URL or from `key=value` pairs, and the environment of this process.
    ///
    /// # Errors
    ///
    /// What cannot be parsed, and keys that nobody knows here: the message names them, and never a password.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, |name| std::env::var(name).ok())
    }

    /// The same with another environment: `variable` is asked for names like `PGHOST`, and for `HOME` and `USER`.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_with(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut settings = uri::settings(text)?;
        environment::complete(&mut settings, &variable);
        settings::connect(settings, &variable)
    }

    /// The same server and user with another password.
    #[must_use]
    pub fn with_password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret(password.into().into()));
        self
    }

    /// The same server as another user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The same server and user with another database.
    #[must_use]
    pub fn with_database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// The same with another name in `pg_stat_activity` and the server's log.
    #[must_use]
    pub fn with_application_name(mut self, name: impl Into<String>) -> Self {
        self.application_name = name.into();
        self
    }

    /// The same with another time that connecting may take per address.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// What the server calls this connection.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// What is demanded of TLS.
    pub fn ssl_mode(&self) -> SslMode {
        self.tls.mode
    }

    /// Hosts with their ports, for messages: `db.example:5432`, or a socket's path.
    pub fn address(&self) -> String {
        self.hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(",")
    }

    /// Opens a session for SQL. A task of the caller's runtime drives the connection and ends when the client is dropped.
    ///
    /// The session has `client_encoding` UTF8 and, as `libpq` has it, whatever the server has otherwise: set `statement_timeout` where a
    /// statement must not take for ever.
    ///
    /// # Errors
    ///
    /// That of the last host that was tried, as [`explain`] has it. Cancellation: dropping the future leaves nothing behind.
    pub async fn connect_sql(&self) -> Result<Client> {
        Ok(self.chosen().await?.1)
    }

    /// The same for questions of this crate's own: names in them are the system's, whatever functions and operators somebody who may make things in the
    /// database has put beside those that fit better (CVE-2018-1058), or in front of them, as the owner of a database can for whoever connects.
    pub(in crate::postgres) async fn connect_to_ask(&self) -> Result<Client> {
        const OURS: &str = "SELECT pg_catalog.set_config('search_path', '', false)";
        let client = self.connect_sql().await?;
        client.query(OURS, &[]).await.map_err(|error| explain(&error))?;
        Ok(client)
    }

    /// The same with the one host that is reachable and has the attributes that are demanded: further connections lead to the
    /// same server.
    ///
    /// # Errors
    ///
    /// As [`connect_sql`](Self::connect_sql).
    pub async fn resolve(&self) -> Result<Self> {
        if self.hosts.len() == 1 && self.target == TargetSession::Any {
            return Ok(self.clone());
        }
        Ok(self.chosen().await?.0)
    }

    async fn chosen(&self) -> Result<(Self, Client)> {
        let mut last = None;
        let mut second_choice = None;
        for host in &self.hosts {
            let one = Self { hosts: vec![host.clone()], target: TargetSession::Any, ..self.clone() };
            let client = match one.session(host).await {
                Ok(client) => client,
                // Whoever is refused by one server is refused by the next, and should learn of it.
                Err(error) if error.kind() == ErrorKind::Denied => return Err(error),
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            if self.suits(&client, host).await? {
                return Ok((one, client));
            }
            let message = format!("{host} is not what target_session_attrs asks for ({})", self.target);
            last = Some(Error::new(ErrorKind::Transient, message));
            if self.target == TargetSession::PreferStandby {
                second_choice.get_or_insert((one, client));
            }
        }
        match (second_choice, last) {
            (Some(chosen), _) => Ok(chosen),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Error::invalid_input("a connection needs a host")),
        }
    }

    async fn suits(&self, client: &Client, host: &Host) -> Result<bool> {
        let asked = match self.target {
            TargetSession::Any => return Ok(true),
            // Nothing is said of the search path yet: all names are whole, and there are no operators.
            TargetSession::ReadWrite => {
                "SELECT NOT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool"
            }
            TargetSession::ReadOnly => {
                "SELECT pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool"
            }
            TargetSession::Primary => "SELECT NOT pg_catalog.pg_is_in_recovery()",
            TargetSession::Standby | TargetSession::PreferStandby => "SELECT pg_catalog.pg_is_in_recovery()",
        };
        let asking = async {
            let row = client.query_one(asked, &[]).await?;
            row.try_get(0)
        };
        match tokio::time::timeout(self.connect_timeout, asking).await {
            Ok(answer) => answer.map_err(|error| explain(&error)),
            Err(_) => Err(too_slow(host, self.connect_timeout)),
        }
    }

    /// A session for SQL at one host.
    async fn session(&self, host: &Host) -> Result<Client> {
        let password = self.password_for(host).await?;
        let logging_in = async {
            let wire = dial::dial(self, host).await?;
            let mut config = tokio_postgres::Config::new();
            config.user(&self.user).dbname(&self.database).application_name(&self.application_name);
            if let Some(options) = &self.options {
                config.options(options);
            }
            if let Some(password) = &password {
                config.password(password.0.as_bytes());
            }
            config.channel_binding(match self.channel_binding {
                ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
                ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
                ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
            });
            // What was agreed on with the server already is only handed over: nothing is sent for it.
            config.ssl_mode(tokio_postgres::config::SslMode::Require);
            config.ssl_negotiation(tokio_postgres::config::SslNegotiation::Direct);
            let (client, connection) = config
                .connect_raw(dial::HandedOver, dial::Handing(wire))
                .await
                .map_err(|error| with_address(&explain(&error), host))?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    // Whoever uses the client learns of it; nobody else needs to.
                    tracing::debug!(%error, "a connection to PostgreSQL ended");
                }
            });
            Ok(client)
        };
        tokio::time::timeout(self.connect_timeout, logging_in)
            .await
            .unwrap_or_else(|_| Err(too_slow(host, self.connect_timeout)))
    }

    /// The stream to the first server that answers, with TLS as it is demanded, and the password for it.
    pub(in crate::postgres) async fn dial(&self) -> Result<Dialled> {
        let mut last = None;
        for host in &self.hosts {
            let dialling = tokio::time::timeout(self.connect_timeout, dial::dial(self, host)).await;
            match dialling.unwrap_or_else(|_| Err(too_slow(host, self.connect_timeout))) {
                Ok(wire) => {
                    let password = self.password_for(host).await?.map(|secret| secret.0);
                    return Ok(Dialled { wire, password, address: host.to_string() });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::invalid_input("a connection needs a host")))
    }

    pub(in crate::postgres) fn timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(in crate::postgres) fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }

    /// Whether logging in may be bound to the certificate, and whether it must be.
    pub(in crate::postgres) fn binds(&self) -> (bool, bool) {
        (self.channel_binding != ChannelBinding::Disable, self.channel_binding == ChannelBinding::Require)
    }

    async fn password_for(&self, host: &Host) -> Result<Option<Secret>> {
        if self.password.is_some() {
            return Ok(self.password.clone());
        }
        let Some(file) = self.passfile.clone() else { return Ok(None) };
        let (host, database, user) = (host.clone(), self.database.clone(), self.user.clone());
        let look = move || passfile::look_up(&file, &host, &database, &user);
        let found = tokio::task::spawn_blocking(look).await;
        found.map_err(|e| Error::internal("the password file could not be read").with_source(e))
    }
}

/// A connection before anybody logged in.
#[derive(Debug)]
pub(in crate::postgres) struct Dialled {
    pub(in crate::postgres) wire: Wire,
    pub(in crate::postgres) password: Option<Arc<str>>,
    pub(in crate::postgres) address: String,
}

impl std::str::FromStr for Connect {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// As a URL without the password and the settings.
impl fmt::Display for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}/{}", self.user, self.address(), self.database)
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("hosts", &self.hosts)
            .field("user", &self.user)
            .field("database", &self.database)
            .field("application_name", &self.application_name)
            .field("tls", &self.tls)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Socket(directory) => write!(f, "{}", directory.join(self.socket()).display()),
            At::Tcp(name, _) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            At::Tcp(name, _) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Host {
    /// What a server calls its socket.
    fn socket(&self) -> String {
        format!(".s.PGSQL.{}", self.port)
    }
}

impl fmt::Display for TargetSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        })
    }
}

fn too_slow(host: &Host, timeout: Duration) -> Error {
    let message =
        format!("{host} did not let anybody in within {} s (connect_timeout)", timeout.as_secs_f32());
    Error::new(ErrorKind::Transient, message)
}

fn with_address(error: &Error, host: &Host) -> Error {
    Error::new(error.kind(), format!("{host}: {}", error.message()))
}

#[cfg(test)]
mod tests;
