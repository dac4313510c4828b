//! What a source needs and refuses: roles, directories, connections, the archive.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{ErrorKind, JobContext, Result, Source};
use backup_sources::postgres::physical::ArchivedSegments;
use backup_sources::postgres::wal::SegmentName;
use backup_sources::postgres::{Connect, PostgresSource};

use crate::exact::Meddling;
use crate::postgres_server::{Cluster, PASSWORD};
use crate::{Setup, both, connect, keeping, local, over_sql, sums};

/// The grants of the documentation, as they stand there.
fn grants(cluster: &Cluster) -> String {
    let text = include_str!("../../src/postgres/physical/mod.rs");
    let block = text.split("//! ```sql\n").nth(1).unwrap().split("//! ```").next().unwrap();
    let lines = block.lines().map(|line| line.trim_start_matches("//! "));
    let old = cluster.version().0 < 15;
    let lines = lines.filter(|line| line.starts_with("GRANT") && (!old || !line.contains("pg_backup_")));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_put_beside_the_systems_operators_is_not_run_by_a_backup() {
    let cluster = keeping().start();
    // Whoever may make things in a schema of the database that is connected to can make what fits better than the system's.
    cluster.sql(
        "create function public.trap(numeric, int) returns numeric language plpgsql as $$begin raise exception 'trap'; end$$; \
         create operator public.* (leftarg = numeric, rightarg = int, function = public.trap)",
    );
    assert!(cluster.try_sql("select 1.5::numeric * 2").unwrap_err().contains("trap"));
    for source in both(&cluster) {
        Setup::new().await.backup(&source).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_sql_a_role_with_five_functions_backs_up_the_whole_cluster() {
    let cluster = keeping().start();
    cluster.tablespace("far");
    cluster.bench_init_with(1, &["--tablespace=far"]);
    cluster.sql(&format!("create role backup login password '{}'", PASSWORD.replace('\'', "''")));
    let text = format!("host=127.0.0.1 port={} user=backup dbname=postgres", cluster.port());
    let role = Connect::parse_with(&text, |_| None).unwrap().with_password(PASSWORD);
    let source = PostgresSource::builder(role).fast_checkpoint(true).connections(2).build().unwrap();
    let setup = Setup::new().await;
    let error = setup.try_backup(&source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let grants = grants(&cluster);
    assert_eq!(grants.lines().count(), 5, "{grants}");
    cluster.script("postgres", &grants);
    let report = setup.backup(&source).await;
    let expected = sums(&cluster);
    let restored = setup.restore(&report).await;
    restored.verify(&cluster);
    let (server, _files) = restored.start(&cluster);
    assert_eq!(sums(&server), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_directory_is_refused() {
    let (one, other) = (Cluster::new(), Cluster::new());
    let setup = Setup::new().await;
    let wrong = PostgresSource::builder(connect(&one)).data_directory(other.data()).build().unwrap();
    let error = setup.try_backup(&wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    // A copy has the same identifier, and is not what the server writes to.
    let copy = one.directory("copy").join("data");
    one.base_backup(&copy, &[]);
    let wrong = PostgresSource::builder(connect(&one)).data_directory(&copy).build().unwrap();
    let error = setup.try_backup(&wrong).await.unwrap_err();
    assert!(error.message().contains("is not the data directory"), "{error}");
    let wrong = PostgresSource::builder(connect(&one)).data_directory("/nowhere").build().unwrap();
    assert_eq!(setup.try_backup(&wrong).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_another_node_with_the_same_port_is_refused() {
    let primary = keeping().start();
    let standby = primary.make_standby();
    standby.share_port(primary.port());
    standby.start();
    standby.catch_up(&primary);
    assert_eq!(standby.port(), primary.port());
    // What the primary writes from now on does not come into the standby's files.
    standby.sql("select pg_wal_replay_pause()");
    let setup = Setup::new().await;
    for (server, other) in [(&primary, &standby), (&standby, &primary)] {
        let wrong = over_sql(server).data_directory(other.data()).build().unwrap();
        let error = setup.try_backup(&wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{error}");
        assert!(error.message().contains("not those of the server"), "{error}");
    }
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
    standby.sql("select pg_wal_replay_resume()");
    for server in [&primary, &standby] {
        setup.backup(&local(server).build().unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_are_made_again_and_the_backups_own_must_not() {
    let cluster = Arc::new(keeping().start());
    cluster.bench_init(2);
    let kill = |what: &'static str| {
        let cluster = cluster.clone();
        Arc::new(move || {
            let condition = match what {
                "all" => "true",
                // The one that started the backup has said nothing else since.
                _ => "query not like '%pg_backup_start%' and query not like '%clock_timestamp%'",
            };
            cluster.sql(&format!(
                "select pg_terminate_backend(pid) from pg_stat_activity \
                 where backend_type = 'client backend' and pid <> pg_backend_pid() and {condition} \
                 and query not like '%pg_ls_dir%'"
            ));
        })
    };
    let setup = Setup::new().await;
    let source = || over_sql(&cluster).connections(3).build().unwrap();
    let report = setup.backup(&Meddling { source: source(), meddle: kill("readers") }).await;
    setup.restore(&report).await.verify(&cluster);
    let error = setup.try_backup(&Meddling { source: source(), meddle: kill("all") }).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    assert_eq!(setup.repository.snapshots(&setup.job).await.unwrap().len(), 1);
}

/// A socket that leads to each of these servers in turn, as an address of several does.
fn in_turn(clusters: &[&Cluster]) -> (tempfile::TempDir, Connect) {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5432")).unwrap();
    let socket = |cluster: &&Cluster| cluster.socket().join(format!(".s.PGSQL.{}", cluster.port()));
    let servers: Vec<PathBuf> = clusters.iter().map(socket).collect();
    std::thread::spawn(move || {
        for (client, server) in listener.incoming().zip(servers.iter().cycle()) {
            let (Ok(client), Ok(server)) = (client, UnixStream::connect(server)) else { return };
            let ways = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
            for (from, to) in ways {
                let (mut from, mut to) = (from.unwrap(), to.unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    let text = format!("host={} port=5432 user=postgres dbname=postgres", directory.path().display());
    let connect = Connect::parse_with(&text, |_| None).unwrap();
    (directory, connect)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_to_several_servers_is_refused() {
    let primary = keeping().start();
    primary.bench_init(1);
    let follower = primary.standby();
    follower.catch_up(&primary);
    let standby: &Cluster = &follower;
    let setup = Setup::new().await;
    let source = |connect| {
        PostgresSource::builder(connect).fast_checkpoint(true).connections(3).named("c").build().unwrap()
    };
    for servers in [[&primary, standby], [standby, &primary]] {
        let (_directory, connect) = in_turn(&servers);
        let error = setup.try_backup(&source(connect)).await.unwrap_err();
        assert!(error.is_retryable() && error.message().contains("several servers"), "{error}");
    }
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
    let (_directory, connect) = in_turn(&[&primary]);
    setup.backup(&source(connect)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_dropped_or_cancelled_leaves_no_backup_on_the_server() {
    let cluster = keeping().start();
    for source in crate::both(&cluster) {
        let mut run = source.begin(&JobContext::new()).await.unwrap();
        run.next(10).await.unwrap();
        drop(run);
        // The server notes it in its log, and its connections are gone.
        crate::postgres_server::eventually("the end of its connections", || {
            let count = cluster.sql(
                "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
            );
            (count == "0").then_some(())
        });
        let setup = Setup::new().await;
        setup.backup(&source).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_keeps_the_contract_of_sources() {
    let cluster = keeping().config("checkpoint_timeout = '1h'").start();
    for source in crate::both(&cluster) {
        backup_core::testing::source::conformance(&source).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tablespace_whose_disk_is_not_there_is_not_left_out_without_a_word() {
    let cluster = keeping().start();
    let place = cluster.tablespace("lost");
    let inside = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
    let setup = Setup::new().await;
    // A disk that is not mounted leaves an empty directory, or none.
    for (from, to) in [(&inside, "version"), (&place, "place")] {
        let away = cluster.directory("away").join(to);
        std::fs::rename(from, &away).unwrap();
        for source in crate::both(&cluster) {
            let error = setup.try_backup(&source).await.unwrap_err();
            assert!(error.to_string().contains("bring back the disk"), "{error}");
        }
        std::fs::rename(&away, from).unwrap();
    }
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
    for source in crate::both(&cluster) {
        setup.backup(&source).await;
    }
}

#[derive(Debug)]
struct Directory(PathBuf);

#[async_trait]
impl ArchivedSegments for Directory {
    async fn missing(&self, _: u64, segments: &[SegmentName]) -> Result<Option<SegmentName>> {
        Ok(segments.iter().find(|name| !self.0.join(name.to_string()).exists()).copied())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_34_there_is_no_snapshot_before_its_log_is_archived() {
    let cluster = Cluster::builder().config("archive_mode = on").make();
    let archive = cluster.directory("archive");
    cluster.append_config("archive_command = 'false'");
    cluster.start();
    let wait = |seconds| {
        let archive = Arc::new(Directory(archive.clone()));
        local(&cluster).wait_for_archive(archive, Duration::from_secs(seconds)).build().unwrap()
    };
    let setup = Setup::new().await;
    let error = setup.try_backup(&wait(1)).await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("is not archived"), "{error}");
    assert!(setup.repository.snapshots(&setup.job).await.unwrap().is_empty());
    cluster.configure(&format!("archive_command = 'sleep 1; cp %p {}/%f'", archive.display()));
    let report = setup.backup(&wait(60)).await;
    let position = setup.position(&report).await;
    for name in ["start_segment", "stop_segment"] {
        assert!(archive.join(&position[name]).exists(), "{name}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let builder = || PostgresSource::builder(Connect::parse_with("host=db.example", |_| None).unwrap());
    for wrong in [
        builder().connections(0),
        builder().connections(65),
        builder().label("two\nlines"),
        builder().label("x".repeat(1025)),
    ] {
        assert_eq!(wrong.build().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(builder().build().unwrap().info().identity, ["postgres://db.example:5432"]);
}
