//! A target that forgets what it is given.

use std::io;

use async_trait::async_trait;
use backup_core::{BlockingWriter, Entry, JobContext, Result, Skipped, Target, WriteOrder, Writer};

/// Takes the content of any entry at any position, and drops it: what is left is the time of reading.
#[derive(Debug)]
pub struct Nowhere;

#[async_trait]
impl Target for Nowhere {
    fn order(&self) -> WriteOrder {
        WriteOrder::Any
    }

    async fn begin(&self, _: &JobContext) -> Result<()> {
        Ok(())
    }

    async fn entry(&self, _: &Entry) -> Result<Writer> {
        Ok(Writer::blocking(|| Ok(Dropped)))
    }

    async fn complete(&self, _: Vec<Entry>) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }

    async fn finish(&self) -> Result<Vec<Skipped>> {
        Ok(Vec::new())
    }
}

struct Dropped;

impl BlockingWriter for Dropped {
    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _: u64) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn abort(self: Box<Self>) {}
}
