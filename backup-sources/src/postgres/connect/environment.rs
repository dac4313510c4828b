//! What the environment says of connections.

use super::settings::Settings;

/// Variables and the settings that they are for.
const VARIABLES: [(&str, &str); 17] = [
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGPORT", "port"),
    ("PGUSER", "user"),
    ("PGDATABASE", "dbname"),
    ("PGPASSWORD", "password"),
    ("PGPASSFILE", "passfile"),
    ("PGAPPNAME", "application_name"),
    ("PGOPTIONS", "options"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLKEY", "sslkey"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("USER", "user"),
];

/// Adds what is not said yet.
pub(super) fn complete(settings: &mut Settings, variable: &dyn Fn(&str) -> Option<String>) {
    // Another host than the environment's is not to be looked up under the environment's address.
    let own_host = settings.contains_key("host") || settings.contains_key("hostaddr");
    for (name, setting) in VARIABLES {
        let is_other_hosts = own_host && matches!(setting, "host" | "hostaddr");
        if settings.contains_key(setting) || is_other_hosts || name == "USER" {
            continue;
        }
        if let Some(value) = variable(name).filter(|value| !value.is_empty()) {
            settings.insert(setting.to_owned(), value);
        }
    }
}
