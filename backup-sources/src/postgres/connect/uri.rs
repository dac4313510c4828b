//! The two texts that say where a server is: a URL, or `key=value` pairs.

use backup_core::{Error, Result};

use super::settings::{KNOWN, Settings};

/// Longest text of a connection.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What the text says, by the names of `libpq`.
pub(super) fn settings(text: &str) -> Result<Settings> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(Error::invalid_input("a connection is a URL or key=value pairs, not longer than 64 KiB"));
    }
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => of_url(rest),
        None => of_pairs(text),
    }
}

fn insert(settings: &mut Settings, key: &str, value: String) -> Result<()> {
    if !KNOWN.contains(&key) {
        let shown: String = key.chars().take(40).collect();
        return Err(Error::invalid_input(format!("a connection has no setting `{}`", shown.escape_debug())));
    }
    settings.insert(key.to_owned(), value);
    Ok(())
}

/// What follows `postgres://`.
fn of_url(rest: &str) -> Result<Settings> {
    let mut settings = Settings::new();
    let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = before.split_once('/').unwrap_or((before, ""));
    if is_cut_password(authority, rest) {
        return Err(Error::invalid_input(
            "a connection's URL has a user and a password without an `@` before the first `/` or `?`: write these as %2F and %3F within a password",
        ));
    }
    // A password may hold an `@` that nobody encoded.
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    for (key, value) in [("user", user), ("password", password), ("dbname", database)] {
        if !value.is_empty() {
            insert(&mut settings, key, decoded(value)?)?;
        }
    }
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',').filter(|_| !hosts.is_empty()) {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':').unwrap_or_default()),
            None => host.rsplit_once(':').unwrap_or((host, "")),
        };
        names.push(decoded(name)?);
        ports.push(decoded(port)?);
    }
    if names.iter().any(|name| !name.is_empty()) {
        insert(&mut settings, "host", names.join(","))?;
    }
    if ports.iter().any(|port| !port.is_empty()) {
        insert(&mut settings, "port", ports.join(","))?;
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            Error::invalid_input(
                "what follows the `?` of a connection is `key=value`, with `&` between pairs",
            )
        })?;
        match (decoded(key)?.as_str(), decoded(value)?) {
            // A name that JDBC has, and `libpq`, too.
            ("ssl", value) if value == "true" => insert(&mut settings, "sslmode", "require".to_owned())?,
            (key, value) => insert(&mut settings, key, value)?,
        }
    }
    Ok(settings)
}

/// Whether what looks like a port is the beginning of a password with a `/` or `?` in it: an error would tell it.
fn is_cut_password(authority: &str, rest: &str) -> bool {
    let has_other_port = |host: &str| {
        let after = host.rsplit_once(':').map_or("", |(_, after)| after);
        !after.ends_with(']') && !after.bytes().all(|byte| byte.is_ascii_digit())
    };
    !authority.contains('@') && rest.contains('@') && authority.split(',').any(has_other_port)
}

/// `%20` and the like.
fn decoded(text: &str) -> Result<String> {
    let wrong =
        || Error::invalid_input("a connection's URL has a `%` that two hexadecimal digits do not follow");
    let mut bytes = Vec::with_capacity(text.len());
    let mut left = text.as_bytes();
    while let Some((first, rest)) = left.split_first() {
        left = rest;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, rest) = left.split_at_checked(2).ok_or_else(wrong)?;
        bytes.extend(hex::decode(digits).map_err(|_| wrong())?);
        left = rest;
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::invalid_input("a connection's URL is not UTF-8, or holds a zero byte")),
    }
}

/// `key=value` pairs; a value with spaces stands in single quotes, and a backslash takes the next character as it is.
fn of_pairs(text: &str) -> Result<Settings> {
    let mut settings = Settings::new();
    let mut left = text.trim_start();
    while !left.is_empty() {
        let Some((key, rest)) = left.split_once('=') else {
            // What follows may be a password.
            return Err(Error::invalid_input(
                "a connection is a URL or `key=value` pairs with spaces between them",
            ));
        };
        let (value, rest) = value(rest.trim_start())?;
        insert(&mut settings, key.trim(), value)?;
        left = rest.trim_start();
    }
    Ok(settings)
}

/// The value that the text starts with, and what follows it.
fn value(text: &str) -> Result<(String, &str)> {
    let (mut left, quoted) = match text.strip_prefix('\'') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let mut value = String::new();
    loop {
        let mut characters = left.chars();
        match characters.next() {
            None if quoted => {
                return Err(Error::invalid_input(
                    "a connection has a value whose single quote is not closed",
                ));
            }
            None => return Ok((value, left)),
            Some('\'') if quoted => return Ok((value, characters.as_str())),
            Some(space) if !quoted && space.is_whitespace() => return Ok((value, left)),
            Some('\\') => value.extend(characters.next()),
            Some(other) => value.push(other),
        }
        left = characters.as_str();
    }
}
