//! Single faults of a store in S3, over HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::ObjectKey;
use backup_sinks::Prefixed;

use crate::servers::server::Server;
use crate::servers::{make, s3_settings};
use crate::stores::Store;
use crate::verbs::Base;
use crate::world::World;
use crate::{init, long, try_all};

/// Without `BACKUP_LONG=1`, one in so many points of each manner is tried, and with it one in a few; primes, so that they go
/// through all calls. The server is in Python and answers some four hundred requests a second, of which a point takes five hundred.
const ONE_IN: usize = 251;
const ONE_IN_LONG: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_single_fault_of_a_store_in_s3_harms_what_was_acknowledged() {
    let server = Server::moto().await;
    let sink = make(s3_settings(server.address, "faults")).await.unwrap();
    let stores = AtomicU64::new(0);
    let world = World::new(move |_| {
        let prefix = ObjectKey::new(stores.fetch_add(1, Ordering::Relaxed).to_string()).unwrap();
        Store::in_a_server(Arc::new(Prefixed::over(sink.clone(), &prefix)))
    });
    let base = Base::make(&world).await;
    let one_in = if long() { ONE_IN_LONG } else { ONE_IN };
    let tried = try_all(&world, &base, &base.verbs, one_in).await;
    assert!(tried.points > 15);
    let (base, verbs) = init(&world, base);
    let tried = try_all(&world, &base, &verbs, one_in).await;
    assert!(tried.points > 6);
}
