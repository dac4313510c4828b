//! Connections to real servers: every way to log in, with TLS and without, for SQL and for replication.
#![cfg(feature = "postgres")]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod postgres_server;

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{ErrorKind, Result};
use backup_sources::postgres::replication::ReplicationClient;
use backup_sources::postgres::{Connect, Timeline};
use postgres_server::{Cluster, PASSWORD, Version, eventually, run};

/// Nothing of this machine's environment.
fn parse(text: &str) -> Connect {
    Connect::parse_with(text, |_| None).unwrap()
}

/// Both kinds of connections to the same place.
async fn both(connect: &Connect) -> Result<ReplicationClient> {
    let client = connect.connect_sql().await?;
    let row = client.query_one("SELECT current_user::text", &[]).await.unwrap();
    assert_eq!(row.get::<_, String>(0), connect.user());
    let mut client = ReplicationClient::connect(connect).await?;
    assert_eq!(client.identify_system().await?.timeline, Timeline::FIRST);
    Ok(client)
}

async fn refused(connect: &Connect, why: &str) {
    for error in [
        connect.connect_sql().await.expect_err("SQL let somebody in"),
        ReplicationClient::connect(connect).await.expect_err("replication let somebody in"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(!error.to_string().contains(PASSWORD), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_asked_for_in_every_way_a_server_knows() {
    let cluster = Cluster::builder()
        .hba("host all,replication clear 127.0.0.1/32 password")
        .hba("host all,replication digest 127.0.0.1/32 md5")
        .hba("host all,replication nobody 127.0.0.1/32 reject")
        .start();
    cluster.sql("create role nobody login replication");
    cluster.sql(&format!("create role clear login replication password $pw${PASSWORD}$pw$"));
    cluster.script(
        "postgres",
        &format!(
            "set password_encryption = md5; create role digest login replication password $pw${PASSWORD}$pw$;"
        ),
    );
    let port = cluster.port();
    for user in ["postgres", "clear", "digest"] {
        let connect = parse(&format!("host=127.0.0.1 port={port} user={user} dbname=postgres"));
        let client = both(&connect.clone().with_password(PASSWORD)).await.unwrap();
        assert!(!client.is_tls() && !client.is_bound());
        refused(&connect.clone().with_password("wrong"), "28P01").await;
        let error = ReplicationClient::connect(&connect).await.unwrap_err();
        assert!(error.to_string().contains("there is none"), "{error}");
        assert!(connect.connect_sql().await.is_err());
        let bound =
            parse(&format!("host=127.0.0.1 port={port} user={user} dbname=postgres channel_binding=require"));
        assert!(
            both(&bound.with_password(PASSWORD)).await.is_err(),
            "there is no certificate to be bound to"
        );
    }
    let nobody = parse(&format!("host=127.0.0.1 port={port} user=nobody dbname=postgres")).with_password("x");
    refused(&nobody, "28000").await;
    both(&parse(&cluster.conninfo("postgres"))).await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgpass");
    let password = PASSWORD.replace('\\', "\\\\");
    std::fs::write(&file, format!("other:*:*:*:no\n127.0.0.1:{port}:*:postgres:{password}\n")).unwrap();
    Command::new("chmod").arg("600").arg(&file).status().unwrap();
    let text =
        format!("host=127.0.0.1 port={port} user=postgres dbname=postgres passfile={}", file.display());
    both(&parse(&text)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_not_there_or_not_what_is_asked_for_are_said_so() {
    let cluster = Cluster::new();
    let connect = parse(&cluster.conninfo("postgres"));
    let free = postgres_server::free_port();
    let none = parse(&format!("host=127.0.0.1 port={free} user=postgres"));
    let error = none.connect_sql().await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains(&free.to_string()), "{error}");
    let error = connect.clone().with_database("nothing").connect_sql().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let text = format!(
        "host=127.0.0.1,{} port={free},{} user=postgres dbname=postgres target_session_attrs=primary",
        cluster.socket().display(),
        cluster.port()
    );
    both(&parse(&text)).await.unwrap();
    let error = parse(&text.replace("primary", "standby")).connect_sql().await.unwrap_err();
    assert!(error.to_string().contains("target_session_attrs"), "{error}");
    // A server that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let connect = parse(&format!("host=127.0.0.1 port={port} user=u connect_timeout=1 sslmode=disable"));
    for error in
        [connect.connect_sql().await.unwrap_err(), ReplicationClient::connect(&connect).await.unwrap_err()]
    {
        assert!(error.is_retryable(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_of_a_database_put_in_front_of_the_system_chooses_no_server() {
    let cluster = Cluster::new();
    // Whoever connects has this path, and what stands in front of the system's functions and operators is called instead of them.
    cluster.sql(
        "create function public.current_setting(text) returns text language plpgsql as $$begin raise exception 'trap'; end$$; \
         create function public.trap(text, text) returns bool language plpgsql as $$begin raise exception 'trap'; end$$; \
         create operator public.= (leftarg = text, rightarg = text, function = public.trap)",
    );
    cluster.sql("alter database postgres set search_path = public, pg_catalog");
    assert!(cluster.try_sql("select current_setting('transaction_read_only')").unwrap_err().contains("trap"));
    let attributes =
        |wanted: &str| parse(&format!("{} target_session_attrs={wanted}", cluster.conninfo("postgres")));
    for wanted in ["any", "read-write", "primary", "prefer-standby"] {
        attributes(wanted).connect_sql().await.unwrap_or_else(|error| panic!("{wanted}: {error}"));
        ReplicationClient::connect(&attributes(wanted)).await.unwrap();
    }
    for wanted in ["read-only", "standby"] {
        let error = attributes(wanted).connect_sql().await.unwrap_err();
        assert!(error.to_string().contains("target_session_attrs"), "{error}");
    }
    cluster.sql("alter database postgres set default_transaction_read_only = on");
    attributes("read-only").connect_sql().await.unwrap();
    let error = attributes("read-write").connect_sql().await.unwrap_err();
    assert!(error.to_string().contains("target_session_attrs"), "{error}");
}

/// An authority and a server's certificate signed by it, for `localhost`.
fn certificates(directory: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let path = |name: &str| directory.join(name);
    let openssl = |arguments: &str| {
        run(Command::new("openssl").args(arguments.split(' ')).current_dir(directory));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 3 -subj /CN=authority -keyout ca.key -out ca.crt");
    openssl("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr");
    std::fs::write(path("names"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl(
        "x509 -req -sha384 -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3 -extfile names -out server.crt",
    );
    openssl("req -x509 -newkey rsa:2048 -nodes -days 3 -subj /CN=other -keyout other.key -out other.crt");
    (path("ca.crt"), path("server.crt"), path("other.crt"))
}

fn built_with_tls(cluster: &Cluster) -> bool {
    let built = cluster.program("pg_config").arg("--configure").output().unwrap();
    String::from_utf8(built.stdout).unwrap().contains("ssl")
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_as_the_mode_demands_and_logging_in_is_bound_to_it() {
    let cluster = Cluster::builder().hba("hostssl all,replication all 127.0.0.1/32 scram-sha-256").make();
    let directory = cluster.directory("certificates");
    let (authority, own, other) = certificates(&directory);
    for name in ["server.crt", "server.key"] {
        let copy = cluster.data().join(name);
        std::fs::copy(directory.join(name), &copy).unwrap();
        Command::new("chmod").arg("600").arg(&copy).status().unwrap();
        cluster.account().own(&copy);
    }
    cluster.start();
    let port = cluster.port();
    let connect = |host: &str, rest: &str| {
        let text = format!("host={host} hostaddr=127.0.0.1 port={port} user=postgres dbname=postgres {rest}");
        parse(&text).with_password(PASSWORD)
    };
    refused(&connect("localhost", "sslmode=require"), "has no TLS").await;
    assert!(!both(&connect("localhost", "sslmode=prefer")).await.unwrap().is_tls());
    if !built_with_tls(&cluster) {
        // Those that come in a package for Python; Debian's is tested always.
        assert_ne!(Version::wanted(), Version(15));
        println!("NOT TESTED: this server was built without TLS");
        return;
    }

    cluster.configure("ssl = on");
    std::thread::sleep(std::time::Duration::from_millis(500));
    let root = |file: &Path, mode: &str| format!("sslmode={mode} sslrootcert={}", file.display());
    let allowed = [
        ("localhost", "sslmode=prefer".to_owned()),
        ("localhost", "sslmode=require".to_owned()),
        ("localhost", "sslmode=require channel_binding=require".to_owned()),
        ("localhost", root(&authority, "verify-full")),
        ("elsewhere", root(&authority, "verify-ca")),
        ("elsewhere", root(&authority, "require")),
        ("localhost", root(&own, "verify-full")),
    ];
    for (host, rest) in allowed {
        let client = both(&connect(host, &rest)).await.unwrap_or_else(|error| panic!("{rest}: {error}"));
        assert!(client.is_tls() && client.is_bound(), "{rest}");
    }
    let unbound = both(&connect("localhost", "sslmode=require channel_binding=disable")).await.unwrap();
    assert!(unbound.is_tls() && !unbound.is_bound());
    refused(&connect("elsewhere", &root(&authority, "verify-full")), "TLS failed").await;
    refused(&connect("localhost", &root(&other, "verify-ca")), "TLS failed").await;
    refused(&connect("localhost", &root(&other, "require")), "TLS failed").await;
    refused(&connect("elsewhere", &root(&own, "verify-full")), "TLS failed").await;
    drop(unbound);
    eventually("the end of all connections, as their clients are gone", || {
        (cluster.sql("select count(*) from pg_stat_ssl where ssl") == "0").then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_and_parameters_are_asked_for_over_replication() {
    let cluster = Cluster::new();
    let mut client = both(&parse(&cluster.conninfo("postgres"))).await.unwrap();
    assert_eq!(client.server_version(), cluster.version().0);
    assert_eq!(client.segment_size().await.unwrap().bytes(), 16 << 20);
    assert_eq!(client.identify_system().await.unwrap().system_identifier, cluster.system_identifier());
    client.create_slot("one").await.unwrap();
    assert_eq!(client.create_slot("one").await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    if client.server_version() >= 15 {
        assert_eq!(client.read_slot("one").await.unwrap().unwrap().1, Timeline::FIRST);
        assert_eq!(client.read_slot("two").await.unwrap(), None);
    }
    client.drop_slot("one").await.unwrap();
    assert_eq!(client.drop_slot("one").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(client.timeline_history(Timeline::new(7)).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(client.show("wal_level; drop table x").await.is_err());
    assert_eq!(
        client.show("wal_level").await.unwrap(),
        "replica",
        "an error leaves the connection as it was"
    );
}
