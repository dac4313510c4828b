//! Out of one cluster, into another.

use std::fs;

use backup_core::EntryName;
use backup_sources::postgres::logical::restore::Found;
use backup_sources::postgres::logical::{DumpFormat, Globals, LogicalBackup};

use super::{Cluster, Setup, connect, quoted, restore, script, source};

/// Names in which a path, a shell, a query or a connection sees something else than a name.
const ODD: [&str; 8] = [
    "with space",
    "UPPER",
    "x host=evil port=1",
    "host=evil",
    "quo'te\"d",
    "a/../b\\c",
    ".hidden",
    "postgres://u@evil/%41",
];

const OBJECTS: &str = "select count(*), sum(hashtextextended(encode(lo_get(oid), 'hex'), 0)::numeric) from pg_largeobject_metadata";

/// Databases with odd names, with rows, large objects and settings that belong to a role with an odd name.
fn fill(cluster: &Cluster) {
    cluster.sql("create role \"the Owner's\" login password 'secret'");
    cluster.sql("create role reader");
    cluster.sql("alter role reader set work_mem = '7MB'");
    cluster.sql("grant reader to \"the Owner's\"");
    for (number, name) in ODD.iter().enumerate() {
        cluster.sql(&format!("create database {} owner \"the Owner's\"", quoted(name)));
        cluster.sql(&format!("alter database {} set statement_timeout = '{}s'", quoted(name), 100 + number));
        let fill = format!(
            "set role \"the Owner's\";
             create table \"T able\" (n int primary key, said text);
             insert into \"T able\" select n, md5((n + {number})::text) from generate_series(1, {rows}) n;
             create sequence numbers; select nextval('numbers') from generate_series(1, 5);
             create view seen as select n from \"T able\" where n > 7;
             create function f(int) returns int language sql immutable as 'select $1 * 2';
             create index on \"T able\" (f(n));
             grant select on \"T able\" to reader;
             select lo_from_bytea(0, repeat('{number}', 5000 * n)::bytea) from generate_series(1, 4) n",
            rows = if number == 0 { 100_000 } else { 100 },
        );
        cluster.sql_in(name, &fill);
    }
}

fn same(a: &Cluster, b: &Cluster, database: &str) {
    assert_eq!(a.checksum(database, "\"T able\""), b.checksum(database, "\"T able\""), "{database}");
    assert_eq!(a.sql_in(database, OBJECTS), b.sql_in(database, OBJECTS), "{database}");
    assert_eq!(script(a, database, "token"), script(b, database, "token"), "{database}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_with_odd_names_come_back_in_another_cluster() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    fill(&cluster);
    let setup = Setup::new().await;
    let report = setup.backup(&source(&cluster).jobs(2).named("odd").build().unwrap()).await;

    // What the snapshot says of itself.
    let snapshot = setup.snapshot(&report).await;
    let backup = LogicalBackup::of(snapshot.info()).unwrap();
    assert_eq!(backup.format, DumpFormat::Custom);
    assert_eq!(backup.server_version / 10_000, cluster.version().0);
    assert_eq!(backup.system_identifier, Some(cluster.system_identifier()));
    assert_eq!(backup.globals, Globals::WithPasswords);
    assert!(backup.start_time <= backup.stop_time && !backup.from_standby);
    let stored = backup.databases(&snapshot, &setup.job).await.unwrap();
    let names: Vec<&str> = stored.iter().map(|database| &*database.name).collect();
    let mut expected: Vec<&str> = ODD.iter().copied().chain(["postgres"]).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);

    // Roles first: those that are there stay as they are.
    let restore = restore(&other).create(true).owners(true);
    let globals = restore.apply_globals(&snapshot, &setup.job).await.unwrap();
    assert!(globals.kept.contains(&"role postgres".to_owned()) && globals.failed.is_empty(), "{globals:?}");
    let hashes = "select rolname, rolpassword from pg_authid where rolname !~ '^(pg_|postgres)' order by 1";
    assert_eq!(cluster.sql(hashes), other.sql(hashes));
    assert_eq!(other.sql("select pg_has_role('the Owner''s', 'reader', 'member')"), "t");

    // A plan changes nothing.
    let plan = restore.plan(&snapshot, &setup.job).await.unwrap();
    assert_eq!(plan.databases.len(), ODD.len() + 1);
    for database in &plan.databases {
        let expected = if database.name == "postgres" { Found::Empty } else { Found::Nothing };
        assert_eq!(database.found, expected, "{database:?}");
    }
    assert_eq!(other.sql("select count(*) from pg_database"), "3");
    let done = restore.apply(&plan, &snapshot, &setup.job).await.unwrap();
    assert_eq!(done.databases.len(), ODD.len() + 1);
    assert_eq!(done.databases.iter().filter(|database| database.created).count(), ODD.len());
    for name in ODD {
        same(&cluster, &other, name);
        let facts = format!(
            "select pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, \
             (select setconfig::text from pg_db_role_setting where setdatabase = oid) \
             from pg_database where datname = '{}'",
            name.replace('\'', "''")
        );
        assert_eq!(cluster.sql(&facts), other.sql(&facts), "{name}");
        let owners = "select relname, relowner::regrole, relacl from pg_class where relnamespace = 'public'::regnamespace order by 1";
        assert_eq!(cluster.sql_in(name, owners), other.sql_in(name, owners), "{name}");
    }

    // Again: all is there, and stays.
    let error = restore.plan(&snapshot, &setup.job).await.unwrap_err().to_string();
    assert!(error.contains("is not empty") && error.contains("public.\"T able\""), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_are_dumped_and_restored_by_several_connections() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    fill(&cluster);
    let setup = Setup::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let directory = source(&cluster).format(DumpFormat::Directory).scratch(scratch.path()).jobs(3);
    let report = setup
        .backup(
            &directory.clone().databases(ODD[..3].iter().copied()).globals(Globals::None).build().unwrap(),
        )
        .await;
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing stays");
    let names = setup.names(&report).await;
    assert!(names.contains(&EntryName::new("databases/with%20space/toc.dat").unwrap()), "{names:?}");
    assert!(names.iter().all(|name| name.as_bytes().starts_with(b"databases/")), "{names:?}");

    let needs = restore(&other).create(true).plan(&setup.snapshot(&report).await, &setup.job).await;
    assert!(needs.unwrap_err().to_string().contains("need a scratch directory"));
    let restore = restore(&other).create(true).jobs(3).scratch(scratch.path());
    setup.restore(&restore, &report).await.unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing stays");
    for name in &ODD[..3] {
        same(&cluster, &other, name);
        let owner =
            "select distinct relowner::regrole from pg_class where relnamespace = 'public'::regnamespace";
        assert_eq!(other.sql_in(name, owner), "postgres", "owners are not restored unless that is asked for");
    }

    // A dump that needs more room than there may be is stopped, and the room is free again.
    let bounded = directory.database(ODD[0]).scratch_bytes_max(100_000).build().unwrap();
    let error = setup.try_backup(&bounded).await.unwrap_err();
    assert_eq!(error.kind(), backup_core::ErrorKind::NoSpace, "{error}");
    super::postgres_server::eventually("an empty directory", || {
        (fs::read_dir(scratch.path()).unwrap().count() == 0).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_dump_is_restored_by_several_connections_and_into_another_database() {
    let cluster = Cluster::new();
    fill(&cluster);
    let setup = Setup::new().await;
    let report = setup.backup(&source(&cluster).database(ODD[0]).build().unwrap()).await;
    let scratch = tempfile::tempdir().unwrap();
    cluster.sql("create database \"copy = of\" template template0");
    let into = restore(&cluster).database(ODD[0]).into_database("copy = of");
    setup.restore(&into.clone().jobs(2).scratch(scratch.path()), &report).await.unwrap();
    assert_eq!(cluster.checksum(ODD[0], "\"T able\""), cluster.checksum("copy = of", "\"T able\""));
    assert_eq!(cluster.sql_in(ODD[0], OBJECTS), cluster.sql_in("copy = of", OBJECTS));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "nothing stays");

    // One table: rows, and nothing else.
    cluster.sql("create database one template template0");
    let table = restore(&cluster).database(ODD[0]).into_database("one").table("T able");
    setup.restore(&table, &report).await.unwrap();
    assert_eq!(cluster.checksum(ODD[0], "\"T able\""), cluster.checksum("one", "\"T able\""));
    assert_eq!(
        cluster.sql_in("one", "select count(*) from pg_class where relname in ('seen', 'numbers')"),
        "0"
    );
    let missing = restore(&cluster).database(ODD[0]).into_database("copy = of").table("t able");
    let error = setup.restore(&missing, &report).await.unwrap_err().to_string();
    assert!(error.contains("t able"), "{error}");
    let again = setup.restore(&table, &report).await.unwrap_err().to_string();
    assert!(again.contains("is not empty"), "{again}");
    setup.restore(&table.clean(true), &report).await.unwrap();
    assert_eq!(cluster.checksum(ODD[0], "\"T able\""), cluster.checksum("one", "\"T able\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_45_equal_clusters_have_equal_dumps_but_for_a_token() {
    let (cluster, setup) = (Cluster::new(), Setup::new().await);
    fill(&cluster);
    let one = source(&cluster).database("UPPER").build().unwrap();
    let (first, second) = (setup.backup(&one).await, setup.backup(&one).await);
    let restore = restore(&cluster);
    let mut scripts = Vec::new();
    for report in [&first, &second] {
        scripts.push(restore.globals(&setup.snapshot(report).await, &setup.job).await.unwrap());
    }
    let without = |script: &str| backup_sources::postgres::logical::restore::without_token(script);
    assert!(scripts[0].contains("SCRAM-SHA-256") && scripts[0].contains("\\restrict "), "{}", scripts[0]);
    assert_ne!(scripts[0], scripts[1]);
    assert_eq!(without(&scripts[0]), without(&scripts[1]));
    // The same of whole databases, where it is asked for one token.
    assert_ne!(script(&cluster, "UPPER", "a"), script(&cluster, "UPPER", "b"));
    assert_eq!(script(&cluster, "UPPER", "a"), script(&cluster, "UPPER", "a"));
    // Dumps in the archive formats have none: they differ by the time in their heads alone.
    assert!(second.bytes_added < 200_000, "{} of {}", second.bytes_added, second.bytes_read);
    let plain = source(&cluster).database("UPPER").globals(Globals::WithoutPasswords).build().unwrap();
    let report = setup.backup(&plain).await;
    let script = restore.globals(&setup.snapshot(&report).await, &setup.job).await.unwrap();
    assert!(script.contains("CREATE ROLE reader") && !script.contains("SCRAM-SHA-256"), "{script}");
    assert_eq!(connect(&cluster).database(), "postgres");
}
