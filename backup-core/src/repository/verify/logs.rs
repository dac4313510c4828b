//! Log segments: each opens, stands where its head says, and has the bytes that the head says.

use super::{Verification, VerifyLevel};
use crate::format::log;
use crate::limits;
use crate::repository::listing::Listing;
use crate::repository::{guard, keys};
use crate::{Error, ObjectKey, Result};

impl Verification<'_> {
    /// Opens them all, unless only the structure is looked at: nothing refers to them.
    pub(super) async fn check_logs(&mut self) -> Result<()> {
        if self.options.level < VerifyLevel::Checksum {
            return Ok(());
        }
        let store = self.repository.store().clone();
        let mut listing = Listing::new(&*store.sink, keys::LOGS);
        while let Some(page) = listing.next().await? {
            for meta in page {
                self.job.check()?;
                let read = store.get_whole(&meta.key, limits::OBJECT_BYTES_MAX, self.job).await;
                let checked = match read {
                    Ok(bytes) => {
                        let (store, key) = (store.clone(), meta.key.clone());
                        guard::blocking(move || {
                            let (head, _) = log::open(&*store.protection, &store.transforms, &bytes)?;
                            stands_in_place(&head, &key)
                        })
                        .await
                    }
                    Err(error) => Err(error),
                };
                self.count(&meta.key, checked)?;
            }
        }
        Ok(())
    }
}

fn stands_in_place(head: &log::LogHead, key: &ObjectKey) -> Result<()> {
    let n = key.as_str().rsplit_once('/').and_then(|(_, n)| n.parse().ok());
    match n {
        Some(n) if head.key(n)? == *key => Ok(()),
        _ => Err(Error::corruption("is another log segment than its name says")),
    }
}
