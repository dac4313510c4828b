//! What programs that use `libpq` are told of a connection: by their environment, which nobody but the same user and root can see.

use std::ffi::OsString;

use backup_core::{Error, Result};

use super::{At, ChannelBinding, Connect, RootCert, SslMode};

impl Connect {
    /// The variables of `libpq` that lead to the first of the hosts, password included; whoever starts a program removes all others that
    /// begin with `PG`. Of several hosts [`resolve`](Self::resolve) finds the one that is meant.
    ///
    /// A database in the environment is a name whatever is in it, which on a command line would be read as `key=value` pairs.
    pub(in crate::postgres) async fn libpq_environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let host = self.hosts.first().ok_or_else(|| Error::invalid_input("a connection needs a host"))?;
        let mut variables: Vec<(&str, OsString)> = vec![
            ("PGPORT", host.port.to_string().into()),
            ("PGUSER", self.user.clone().into()),
            ("PGDATABASE", self.database.clone().into()),
            ("PGAPPNAME", self.application_name.clone().into()),
            // `libpq` rounds up; it waits for ever only for 0.
            ("PGCONNECT_TIMEOUT", self.connect_timeout.as_secs().max(1).to_string().into()),
            // Not tried here either.
            ("PGGSSENCMODE", "disable".into()),
        ];
        match &host.at {
            At::Socket(directory) => variables.push(("PGHOST", directory.clone().into())),
            At::Tcp(name, address) => {
                variables.push(("PGHOST", name.clone().into()));
                variables.extend(address.map(|address| ("PGHOSTADDR", address.to_string().into())));
            }
        }
        let mode = match self.tls.mode {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        };
        variables.push(("PGSSLMODE", mode.into()));
        match &self.tls.root {
            Some(RootCert::System) => variables.push(("PGSSLROOTCERT", "system".into())),
            Some(RootCert::File(file)) => variables.push(("PGSSLROOTCERT", file.clone().into())),
            None => {}
        }
        if let Some((certificate, key)) = &self.tls.client {
            variables.push(("PGSSLCERT", certificate.clone().into()));
            variables.push(("PGSSLKEY", key.clone().into()));
        }
        let binding = match self.channel_binding {
            ChannelBinding::Disable => "disable",
            ChannelBinding::Prefer => "prefer",
            ChannelBinding::Require => "require",
        };
        variables.push(("PGCHANNELBINDING", binding.into()));
        variables.extend(self.options.clone().map(|options| ("PGOPTIONS", options.into())));
        if let Some(password) = self.password_for(host).await? {
            variables.push(("PGPASSWORD", password.0.to_string().into()));
        }
        Ok(variables.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// The name of a database for an argument that is taken for `key=value` pairs where it looks like them.
pub(in crate::postgres) fn database_argument(database: &str) -> String {
    format!("dbname='{}'", database.replace('\\', r"\\").replace('\'', r"\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_stay_names_and_secrets_stay_out_of_arguments() {
        let connect =
            Connect::parse_with("host=db hostaddr=192.0.2.7 port=6000 user=u password=sesame", |_| None);
        let connect = connect.unwrap().with_database("a' host=evil \\");
        let variables = connect.libpq_environment().await.unwrap();
        let value = |name: &str| {
            variables.iter().find(|(other, _)| other == name).map(|(_, value)| value.to_str().unwrap())
        };
        assert_eq!(value("PGDATABASE"), Some("a' host=evil \\"));
        assert_eq!(value("PGPASSWORD"), Some("sesame"));
        assert_eq!(
            (value("PGHOST"), value("PGHOSTADDR"), value("PGPORT")),
            (Some("db"), Some("192.0.2.7"), Some("6000"))
        );
        assert_eq!(database_argument(connect.database()), r"dbname='a\' host=evil \\'");
    }
}
