//! Listings that are not held as a whole: a repository may have millions of packs.

use crate::sink::check_page;
use crate::{ObjectKey, ObjectMeta, Result, Sink, limits};

/// The objects below a prefix, page by page.
#[derive(Debug)]
pub(crate) struct Listing<'a> {
    sink: &'a dyn Sink,
    prefix: &'a str,
    after: Option<ObjectKey>,
    ended: bool,
}

impl<'a> Listing<'a> {
    pub(crate) fn new(sink: &'a dyn Sink, prefix: &'a str) -> Self {
        Self { sink, prefix, after: None, ended: false }
    }

    /// The next page; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<ObjectMeta>>> {
        if self.ended {
            return Ok(None);
        }
        let page = self.sink.list(self.prefix, self.after.as_ref(), limits::LIST_PAGE_OBJECTS_MAX).await?;
        check_page(&page, self.prefix, self.after.as_ref())?;
        self.ended = page.len() < limits::LIST_PAGE_OBJECTS_MAX;
        self.after = page.last().map(|meta| meta.key.clone());
        Ok(Some(page))
    }
}
