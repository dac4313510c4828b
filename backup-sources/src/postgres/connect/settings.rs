//! What the settings of a connection mean.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{Error, Result};

use super::{At, CONNECT_TIMEOUT, ChannelBinding, Connect, HOSTS_MAX, Host, RootCert, Secret};
use super::{SslMode, TargetSession, TlsSettings};

/// Settings by the names that `libpq` gives them.
pub(super) type Settings = BTreeMap<String, String>;

/// Settings that are known, and mean what they mean here or nothing at all: keepalives are always on.
pub(super) const KNOWN: [&str; 30] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "sslcert",
    "sslcompression",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

const PORT: u16 = 5432;

/// What a server's packages and the server itself have as the directory of its socket.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

pub(super) fn connect(mut settings: Settings, variable: &dyn Fn(&str) -> Option<String>) -> Result<Connect> {
    let mut take = |name: &str| settings.remove(name).filter(|value| !value.is_empty());
    let hosts = hosts(take("host"), take("hostaddr"), take("port"))?;
    let user = match take("user").or_else(this_user) {
        Some(user) => user,
        None => return Err(Error::invalid_input("a connection needs a user (PGUSER)")),
    };
    let database = take("dbname").unwrap_or_else(|| user.clone());
    let home = variable("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let passfile = take("passfile").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".pgpass")));
    let application_name = take("application_name").or_else(|| take("fallback_application_name"));
    let connect_timeout = match take("connect_timeout") {
        None => CONNECT_TIMEOUT,
        Some(text) => match text.trim().parse::<i64>() {
            // `libpq` waits for ever then; here somebody may be waiting for us.
            Ok(seconds) if seconds <= 0 => CONNECT_TIMEOUT,
            Ok(seconds) => Duration::from_secs(seconds.unsigned_abs().clamp(1, 3600)),
            Err(_) => return Err(wrong("connect_timeout", &text, "a number of seconds")),
        },
    };
    let root = match take("sslrootcert") {
        Some(system) if system == "system" => Some(RootCert::System),
        Some(file) => Some(RootCert::File(file.into())),
        None => home
            .as_ref()
            .map(|home| home.join(".postgresql/root.crt"))
            .filter(|p| p.is_file())
            .map(RootCert::File),
    };
    let mode = match take("sslmode").as_deref() {
        None if root == Some(RootCert::System) => SslMode::VerifyFull,
        None | Some("prefer" | "allow") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(other) => {
            return Err(wrong("sslmode", other, "disable, prefer, require, verify-ca or verify-full"));
        }
    };
    if root == Some(RootCert::System) && mode != SslMode::VerifyFull {
        let message = "sslrootcert=system trusts whomever the system trusts: it needs sslmode=verify-full";
        return Err(Error::invalid_input(message));
    }
    if matches!(mode, SslMode::VerifyCa | SslMode::VerifyFull) && root.is_none() {
        let message =
            "sslmode=verify-ca and verify-full need sslrootcert: a file of certificates, or `system`";
        return Err(Error::invalid_input(message));
    }
    let client = match (take("sslcert"), take("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err(Error::invalid_input("sslcert and sslkey are only of use together")),
    };
    let channel_binding = match take("channel_binding").as_deref() {
        None | Some("prefer") => ChannelBinding::Prefer,
        Some("disable") => ChannelBinding::Disable,
        Some("require") => ChannelBinding::Require,
        Some(other) => return Err(wrong("channel_binding", other, "disable, prefer or require")),
    };
    let target = match take("target_session_attrs").as_deref() {
        None | Some("any") => TargetSession::Any,
        Some("read-write") => TargetSession::ReadWrite,
        Some("read-only") => TargetSession::ReadOnly,
        Some("primary") => TargetSession::Primary,
        Some("standby") => TargetSession::Standby,
        Some("prefer-standby") => TargetSession::PreferStandby,
        Some(other) => {
            let known = "any, read-write, read-only, primary, standby or prefer-standby";
            return Err(wrong("target_session_attrs", other, known));
        }
    };
    Ok(Connect {
        hosts,
        user,
        database,
        password: take("password").map(|password| Secret(password.into())),
        passfile,
        application_name: application_name.unwrap_or_else(|| "backup".to_owned()),
        options: take("options"),
        connect_timeout,
        tls: TlsSettings { mode, root, client },
        channel_binding,
        target,
    })
}

/// Hosts and their ports. One port is for all, or there is one for each.
fn hosts(host: Option<String>, address: Option<String>, port: Option<String>) -> Result<Vec<Host>> {
    let list = |text: &Option<String>| -> Vec<String> {
        text.as_deref()
            .map(|text| text.split(',').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let (names, addresses, ports) = (list(&host), list(&address), list(&port));
    let count = names.len().max(addresses.len()).max(1);
    if count > HOSTS_MAX {
        return Err(Error::invalid_input(format!("a connection names at most {HOSTS_MAX} hosts")));
    }
    let fits = |have: usize| have == 0 || have == count;
    if !fits(names.len()) || !fits(addresses.len()) || !(fits(ports.len()) || ports.len() == 1) {
        return Err(Error::invalid_input("host, hostaddr and port name different numbers of servers"));
    }
    let mut hosts = Vec::with_capacity(count);
    for index in 0..count {
        let port = ports.get(index).or(ports.first()).map(String::as_str).unwrap_or_default();
        let port = match port {
            "" => PORT,
            text => match text.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return Err(wrong("port", text, "a number from 1 to 65535")),
            },
        };
        let address = match addresses.get(index).map(String::as_str) {
            None | Some("") => None,
            Some(text) => match text.parse::<IpAddr>() {
                Ok(address) => Some(address),
                Err(_) => return Err(wrong("hostaddr", text, "an address like 192.0.2.1")),
            },
        };
        let name = names.get(index).map(String::as_str).unwrap_or_default();
        let at = match (name, address) {
            (name, None) if name.starts_with('/') => At::Socket(name.into()),
            ("", None) => At::Socket(socket_directory(port)),
            ("", Some(address)) => At::Tcp(address.to_string(), Some(address)),
            (name, address) => At::Tcp(name.trim_matches(['[', ']']).to_owned(), address),
        };
        hosts.push(Host { at, port });
    }
    Ok(hosts)
}

/// The directory in which a server has its socket, or would usually have it.
fn socket_directory(port: u16) -> PathBuf {
    let has_socket = |directory: &&&str| Path::new(directory).join(format!(".s.PGSQL.{port}")).exists();
    let [usual, _] = SOCKET_DIRECTORIES;
    SOCKET_DIRECTORIES.iter().find(has_socket).copied().unwrap_or(usual).into()
}

fn this_user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

fn wrong(setting: &str, value: &str, expected: &str) -> Error {
    let shown: String = value.chars().take(60).collect();
    Error::invalid_input(format!("{setting} is `{}` and must be {expected}", shown.escape_debug()))
}
