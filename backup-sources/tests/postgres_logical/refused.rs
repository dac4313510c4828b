//! What a restore does not do to what is there.

use backup_core::ErrorKind;

use super::{Cluster, Setup, programs, restore, source};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_something_in_it_stays_as_it_is_unless_that_is_said() {
    let (cluster, setup) = (Cluster::new(), Setup::new().await);
    cluster.sql("create database shop");
    cluster.sql_in("shop", "create table t as select 1 as n; create table u as select 2 as n");
    let report = setup.backup(&source(&cluster).database("shop").build().unwrap()).await;
    let snapshot = setup.snapshot(&report).await;
    cluster.sql_in("shop", "update t set n = 7; create table newer as select 3 as n");
    let shop = restore(&cluster).database("shop");
    let refused = |what: &'static str, wanted: backup_sources::postgres::logical::restore::LogicalRestore| {
        let (snapshot, job) = (&snapshot, &setup.job);
        async move {
            let error = wanted.plan(snapshot, job).await.expect_err(what);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
            error.to_string()
        }
    };
    let error = refused("a full database", shop.clone()).await;
    assert!(error.contains("`shop` is not empty: it has public.newer, public.t, public.u"), "{error}");
    let error =
        refused("databases that the backup lacks", restore(&cluster).database("a").database("b")).await;
    assert!(error.contains("no database `a`") && error.contains("no database `b`"), "{error}");
    let error = refused("a database that is not there", shop.clone().into_database("x")).await;
    assert!(error.contains("`x` is not there"), "{error}");
    refused("several into one", restore(&cluster).into_database("x")).await;
    refused("tables of several", restore(&cluster).table("t")).await;
    refused("no connections", shop.clone().jobs(0)).await;
    refused("several connections without a scratch directory", shop.clone().jobs(2)).await;
    for (what, sql) in [
        ("a function", "create function public.f() returns int language sql as 'select 1'"),
        ("a large object", "select lo_from_bytea(0, 'x')"),
        ("a schema", "create schema s"),
        ("a type", "create type public.colour as enum ('red')"),
    ] {
        cluster.sql("create database other template template0");
        assert!(shop.clone().into_database("other").plan(&snapshot, &setup.job).await.is_ok());
        cluster.sql_in("other", sql);
        let error = refused(what, shop.clone().into_database("other")).await;
        assert!(error.contains("`other` is not empty"), "{error}");
        cluster.sql("drop database other");
    }

    // Cleaned: what is in the dump is replaced, what is not stays.
    let clean = shop.clean(true);
    let plan = clean.plan(&snapshot, &setup.job).await.unwrap();
    assert_eq!(plan.databases[0].replaced, ["public.newer", "public.t", "public.u"]);
    assert_eq!(cluster.sql_in("shop", "select n from t"), "7", "a plan changes nothing");
    clean.apply(&plan, &snapshot, &setup.job).await.unwrap();
    assert_eq!(cluster.sql_in("shop", "select t.n, u.n, newer.n from t, u, newer"), "1|2|3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_fails_leaves_all_as_it_was() {
    let (cluster, setup) = (Cluster::new(), Setup::new().await);
    cluster.sql("create database shop");
    cluster.sql_in(
        "shop",
        "create table t as select n from generate_series(1, 1000) n; create table u as select 2 as n",
    );
    let report = setup.backup(&source(&cluster).database("shop").build().unwrap()).await;
    cluster.sql_in("shop", "update t set n = 7; create view v as select * from u");

    // The view is in the way of dropping `u`, after `t` was dropped or not.
    let clean = restore(&cluster).database("shop").clean(true);
    let error = setup.restore(&clean, &report).await.unwrap_err().to_string();
    assert!(error.contains("the database `shop` was not restored") && error.contains("depend"), "{error}");
    assert_eq!(cluster.sql_in("shop", "select count(*), min(n) from t"), "1000|7");

    // A program that dies in the middle, and one that says in the end that it went wrong.
    let version = "[ \"$1\" = --version ] && exec REAL --version\n";
    let half = "case \"$*\" in *--create*) exec REAL \"$@\";; esac; head -c 5000 | REAL \"$@\"; kill -9 $$";
    let end = "case \"$*\" in *--create*) exec REAL \"$@\";; esac; cat >/dev/null; echo 'errors ignored on restore: 1' >&2; exit 1";
    cluster.sql_in("shop", "drop view v");
    cluster.sql("alter database shop rename to kept");
    for (script, expected) in [(half, "killed by signal 9"), (end, "errors ignored on restore: 1")] {
        let directory = tempfile::tempdir().unwrap();
        let bin = programs(&cluster, directory.path(), &[("pg_restore", &(version.to_owned() + script))]);
        let error =
            setup.restore(&restore(&cluster).database("shop").create(true).programs(bin), &report).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let there = cluster.sql("select count(*) from pg_database where datname = 'shop'");
        assert_eq!(there, "0", "what was made for it is removed again");
    }

    // An older program cannot read the dump; one is said to be so.
    let directory = tempfile::tempdir().unwrap();
    let bin = programs(&cluster, directory.path(), &[("pg_restore", "echo 'pg_restore (PostgreSQL) 14.1'")]);
    let old = restore(&cluster).database("shop").create(true).programs(bin);
    let error = setup.restore(&old, &report).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("14.1"), "{error}");
    setup.restore(&restore(&cluster).database("shop").create(true), &report).await.unwrap();
    assert_eq!(cluster.sql_in("shop", "select count(*), max(n) from t"), "1000|1000");
}
