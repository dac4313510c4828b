//! Dumps of databases whose owners want something of whoever restores them.

use std::fs;
use std::path::Path;

use backup_sources::postgres::Connect;
use backup_sources::postgres::logical::restore::LogicalRestore;

use super::{Cluster, Setup, programs, restore, source};

/// What `psql` would run.
fn bait(marker: &Path) -> String {
    format!("x\n\\! touch {}\n; --", marker.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_40_what_names_and_comments_hold_is_not_run_by_whoever_restores() {
    let (cluster, other, setup) = (Cluster::new(), Cluster::new(), Setup::new().await);
    let place = cluster.directory("baits");
    let bait = |name: &str| bait(&place.join(name));
    cluster.sql("create role \"r \\! touch x\"");
    cluster.sql(&format!("comment on role \"r \\! touch x\" is '{}'", bait("role")));
    cluster.sql("create database \"d \\! touch x\"");
    cluster.sql(&format!("comment on database \"d \\! touch x\" is '{}'", bait("database")));
    cluster.sql_in(
        "d \\! touch x",
        &format!(
            "create table \"{0}\" (\"{1}\" text); insert into \"{0}\" values ('{2}'); comment on table \"{0}\" is '{3}';
             create function g() returns int language sql as 'select 1 /* {4} */'",
            bait("table"),
            bait("column"),
            bait("value"),
            bait("comment"),
            bait("function"),
        ),
    );
    let report = setup.backup(&source(&cluster).build().unwrap()).await;
    let snapshot = setup.snapshot(&report).await;

    // By a role that may make databases, and nothing else.
    let globals = restore(&other).apply_globals(&snapshot, &setup.job).await.unwrap();
    assert_eq!(globals.failed, Vec::<String>::new());
    other.sql("create role restorer login createdb");
    let text = other.conninfo("postgres").replace("user=postgres", "user=restorer");
    let connect = Connect::parse_with(&text, |_| None).unwrap();
    let least =
        LogicalRestore::new(connect).programs(other.version().bin()).database("d \\! touch x").create(true);
    setup.restore(&least, &report).await.unwrap();

    let comments = |cluster: &Cluster| {
        let described = "select shobj_description(oid, 'pg_database') from pg_database where datname like 'd %' union all \
             select shobj_description(oid, 'pg_authid') from pg_authid where rolname like 'r %'";
        let inside = "select relname, obj_description(oid), (select attname from pg_attribute where attrelid = c.oid and attnum = 1) \
             from pg_class c where relkind = 'r' and relnamespace = 'public'::regnamespace";
        (cluster.sql(described), cluster.sql_in("d \\! touch x", inside))
    };
    assert_eq!(comments(&cluster), comments(&other), "all is there, to the letter");
    let table = format!("\"{}\"", bait("table"));
    assert_eq!(cluster.checksum("d \\! touch x", &table), other.checksum("d \\! touch x", &table));
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "a command in the dump was run");
    let owner = "select distinct relowner::regrole from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(other.sql_in("d \\! touch x", owner), "restorer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_40_what_somebody_put_beside_the_systems_operators_is_not_run_by_whoever_restores() {
    let (cluster, setup) = (Cluster::new(), Setup::new().await);
    // Whoever may make things in a schema can make what fits better than the system's, and a database's owner what comes first.
    let trap = |left: &str, operator: &str, right: &str, gives: &str, number: u32| {
        format!(
            "create function public.trap{number}({left}, {right}) returns {gives} language plpgsql as $$begin raise exception 'trap {number}'; end$$; \
             create operator public.{operator} (leftarg = {left}, rightarg = {right}, function = public.trap{number})"
        )
    };
    cluster.sql(&trap("text", "||", "name", "text", 1));
    cluster.sql("create database d");
    cluster.sql_in("d", "create table t as select 1 as a");
    let report = setup.backup(&source(&cluster).build().unwrap()).await;
    let snapshot = setup.snapshot(&report).await;
    cluster.sql_in("d", &trap("oid", "=", "oid", "bool", 2));
    cluster.sql_in("d", &trap("name", "<>", "text", "bool", 3));
    cluster.sql("alter database d set search_path = public, pg_catalog");

    let globals = restore(&cluster).apply_globals(&snapshot, &setup.job).await.unwrap();
    assert_eq!(globals.failed, Vec::<String>::new());
    let refused = restore(&cluster).database("d").plan(&snapshot, &setup.job).await.unwrap_err().to_string();
    assert!(refused.contains("is not empty"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trap_40_a_script_in_the_place_of_a_dump_is_refused() {
    let (cluster, setup) = (Cluster::new(), Setup::new().await);
    let directory = tempfile::tempdir().unwrap();
    let marker = directory.path().join("marker");
    let version = "[ \"$1\" = --version ] && exec REAL --version\n";
    let script = format!("{version}printf '%s\\n' '\\! touch {}' 'create table evil ();'", marker.display());
    let bin = programs(&cluster, directory.path(), &[("pg_dump", &script), ("pg_dumpall", &script)]);
    cluster.sql("create database d");
    let report = setup.backup(&source(&cluster).database("d").programs(bin).build().unwrap()).await;
    let snapshot = setup.snapshot(&report).await;
    let restore = restore(&cluster);
    let error = setup.restore(&restore.clone().database("d"), &report).await.unwrap_err().to_string();
    assert!(error.contains("the database `d` was not restored"), "{error}");
    let error = restore.apply_globals(&snapshot, &setup.job).await.unwrap_err().to_string();
    assert!(error.contains("a command for psql"), "{error}");
    assert_eq!(cluster.sql_in("d", "select count(*) from pg_class where relname = 'evil'"), "0");
    assert!(!marker.exists(), "a command in the script was run");
}
