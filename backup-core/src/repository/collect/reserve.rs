//! Room for a collection where a disk is full: an object that holds nothing, and can be deleted for it.

use bytes::Bytes;

use crate::repository::Repository;
use crate::repository::keys::{self, ControlKey};
use crate::repository::store::{PutCounters, Store};
use crate::{JobContext, Result, SinkExt, limits};

impl Repository {
    /// Puts the reserve, unless it is there. That it cannot be put does no harm for now.
    pub(in crate::repository) async fn keep_reserve(&self, job: &JobContext) -> Result<()> {
        let store = self.store();
        if !store.sink.list_all(keys::RESERVE).await?.is_empty() {
            return Ok(());
        }
        // A file system that compresses would keep no room for zeros.
        let mut bytes = vec![0; limits::RESERVE_BYTES];
        blake3::Hasher::new_keyed(&Store::salt(job)?).finalize_xof().fill(&mut bytes);
        let put =
            store.put(&ControlKey::Reserve.key()?, Bytes::from(bytes), &PutCounters::default(), job).await;
        if let Err(error) = put {
            tracing::warn!(%error, "no reserve is kept for a collection on a full disk");
        }
        Ok(())
    }

    /// Deletes the reserve. Returns whether there was one.
    pub(in crate::repository) async fn give_up_reserve(&self) -> Result<bool> {
        let sink = &self.store().sink;
        if sink.list_all(keys::RESERVE).await?.is_empty() {
            return Ok(false);
        }
        let key = ControlKey::Reserve.key()?;
        sink.delete(&key).await.map_err(|e| e.with_object(&key))?;
        tracing::warn!("the store is full; the reserve was given up for a collection");
        Ok(true)
    }
}
