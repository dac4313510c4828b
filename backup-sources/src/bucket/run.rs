//! One run: lists, and reads what the engine asks for.

use async_trait::async_trait;
use backup_core::{Content, Entry, Error, Finished, Item, Result, SourceRun};
use object_store::path::Path;

use super::BucketSource;
use super::content::ObjectContent;
use super::fetch::{Fetcher, Wanted};
use super::listing::Listing;

/// A run of a [`BucketSource`].
pub(super) struct BucketRun {
    prefix: Option<Path>,
    listing: tokio::sync::Mutex<Listing>,
    fetcher: Option<Fetcher>,
}

impl BucketRun {
    pub(super) fn start(source: BucketSource) -> Self {
        Self {
            prefix: source.prefix.clone(),
            fetcher: Some(Fetcher::start(source.clone())),
            listing: tokio::sync::Mutex::new(Listing::new(source)),
        }
    }
}

#[async_trait]
impl SourceRun for BucketRun {
    async fn next(&mut self, max: usize) -> Result<Vec<Item>> {
        self.listing.get_mut().next(max).await
    }

    async fn open(&self, entry: &Entry) -> Result<Content> {
        let foreign = || Error::invalid_input("this entry is not of this run").with_entry(&entry.name);
        let name = std::str::from_utf8(entry.name.as_bytes()).map_err(|_| foreign())?;
        let path = match &self.prefix {
            Some(prefix) => Path::parse(format!("{prefix}/{name}")),
            None => Path::parse(name),
        };
        let wanted = Wanted {
            path: path.map_err(|_| foreign())?,
            name: entry.name.clone(),
            size: entry.size.unwrap_or_default(),
            etag: entry
                .attribute(b"object:etag")
                .and_then(|value| std::str::from_utf8(value).ok())
                .map(str::to_owned),
        };
        let fetcher = self.fetcher.as_ref().ok_or_else(foreign)?;
        let pieces = fetcher.fetch(wanted).map_err(|error| error.with_entry(&entry.name))?;
        Ok(Content::blocking(move || Ok(ObjectContent::new(pieces))))
    }

    async fn finish(&mut self) -> Result<Finished> {
        self.fetcher = None;
        Ok(Finished::default())
    }
}
