//! Connections as they are parsed.

#![allow(clippy::indexing_slicing)]

use super::*;

fn parse(text: &str) -> Result<Connect> {
    Connect::parse_with(text, |name| (name == "PGUSER").then(|| "somebody".to_owned()))
}

#[test]
fn urls_and_pairs_say_the_same() {
    let url =
        parse("postgresql://u%40x:p%3Aw@h1:1,[::1]:2/d%20b?connect_timeout=3&application_name=a").unwrap();
    let pairs = parse(
        r"user=u@x password='p:w' host=h1,::1 port=1,2 dbname='d b' connect_timeout = 3 application_name=a",
    );
    let pairs = pairs.unwrap();
    assert_eq!(format!("{url:?}"), format!("{pairs:?}"));
    assert_eq!(url.password, pairs.password);
    assert_eq!(&*url.password.clone().unwrap().0, "p:w");
    assert_eq!(url.address(), "h1:1,[::1]:2");
    assert_eq!(url.connect_timeout, Duration::from_secs(3));
    let escaped = parse(r"host=/run/x password='it\'s \\' user=u\ v").unwrap();
    assert_eq!((&*escaped.password.clone().unwrap().0, escaped.user()), (r"it's \", "u v"));
    assert_eq!(escaped.address(), "/run/x/.s.PGSQL.5432");
    assert_eq!(parse("postgres://%2Frun%2Fx/d").unwrap().address(), "/run/x/.s.PGSQL.5432");
}

#[test]
fn what_is_not_said_comes_from_the_environment() {
    let environment = |name: &str| {
        Some(match name {
            "PGHOST" => "env.example".to_owned(),
            "PGHOSTADDR" => "192.0.2.1".to_owned(),
            "PGPORT" => "6000".to_owned(),
            "PGUSER" => "env".to_owned(),
            "PGPASSWORD" => "env-secret".to_owned(),
            "PGSSLMODE" => "disable".to_owned(),
            _ => return None,
        })
    };
    let all = Connect::parse_with("", environment).unwrap();
    assert_eq!(all.to_string(), "postgres://env@env.example:6000/env");
    assert_eq!(all.hosts[0].at, At::Tcp("env.example".into(), Some("192.0.2.1".parse().unwrap())));
    assert_eq!(all.ssl_mode(), SslMode::Disable);
    let other = Connect::parse_with("host=other user=me sslmode=require", environment).unwrap();
    assert_eq!(other.to_string(), "postgres://me@other:6000/me");
    assert_eq!(other.hosts[0].at, At::Tcp("other".into(), None), "not under the other's address");
}

#[test]
fn passwords_are_never_shown() {
    let connect = parse("postgres://u:sesame@h/d").unwrap().with_password("sesame");
    for shown in [format!("{connect:?}"), connect.to_string(), format!("{:?}", connect.password)] {
        assert!(!shown.contains("sesame"), "{shown}");
    }
    for wrong in [
        "user=u password=sesame nonsense=1",
        "sesame",
        "password='sesame",
        "postgres://u:sesame@h:99999/d",
        "postgres://u:sesame@h/d?sesam%",
        "postgres://u:sesame%zz@h/d",
        "postgres://u:sesame@h/d?novalue",
        "password=sesame sslmode=maybe",
    ] {
        let error = parse(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
        assert!(!error.to_string().contains("sesame"), "{error}");
    }
}

#[test]
fn no_part_of_a_password_that_is_not_encoded_is_told() {
    for wrong in
        ["postgres://u:open/sesame@h/d", "postgres://u:open?sesame=x@h/d", "postgres://u:open/ses?ame=@h"]
    {
        let error = parse(wrong).unwrap_err().to_string();
        assert!(!error.contains("open") && !error.contains("ses") && error.contains("%2F"), "{error}");
    }
    for right in ["postgres://[::1]/d?options=a@b", "postgres://h:1,i/d?options=a@b", "postgres://h/d@x"] {
        assert!(parse(right).is_ok(), "{right}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    for wrong in [
        "host=a,b port=1,2,3",
        "host=a,b hostaddr=192.0.2.1",
        "host=a port=0",
        "hostaddr=nowhere",
        "sslmode=verify-full",
        "sslrootcert=system sslmode=require",
        "sslcert=/x",
        "channel_binding=maybe",
        "target_session_attrs=master",
        "connect_timeout=soon",
    ] {
        assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
    }
    assert!(parse(&format!("host={}", vec!["h"; HOSTS_MAX + 1].join(","))).is_err());
    assert_eq!(parse("sslrootcert=system").unwrap().ssl_mode(), SslMode::VerifyFull);
}

#[test]
fn password_files_are_read_as_libpq_reads_them() {
    let text =
        "# a comment\nh:5432:other:u:no\nh:*:d:u:it\\:s:here\n*:*:*:*:any\nlocalhost:1:x:y:sock\nshort:line";
    let host = |name: &str| Host { at: At::Tcp(name.into(), None), port: 5432 };
    let find = |host: &Host, database: &str, user: &str| {
        passfile::find(text, host, database, user).map(|secret| secret.0.to_string())
    };
    assert_eq!(find(&host("h"), "d", "u").as_deref(), Some("it:s:here"));
    assert_eq!(find(&host("h"), "d", "v").as_deref(), Some("any"));
    let socket = Host { at: At::Socket("/tmp".into()), port: 1 };
    let sock = passfile::find("localhost:1:x:y:sock", &socket, "x", "y").unwrap();
    assert_eq!(&*sock.0, "sock");
    assert_eq!(passfile::find("h:5432:d:u:", &host("i"), "d", "u"), None);
}

#[test]
fn a_password_file_that_others_can_read_is_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgpass");
    std::fs::write(&file, "*:*:*:*:secret\n").unwrap();
    let host = Host { at: At::Tcp("h".into(), None), port: 5432 };
    for (mode, found) in [(0o600, true), (0o640, false), (0o604, false)] {
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(passfile::look_up(&file, &host, "d", "u").is_some(), found, "{mode:o}");
    }
}
