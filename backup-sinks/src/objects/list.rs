//! Listing in ascending order, from stores that list by directory, and some of them in no order.

use std::collections::BTreeMap;

use backup_core::{ObjectKey, ObjectMeta, Result, Timestamp};
use futures_util::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use super::{ObjectStoreSink, error};

pub(super) async fn list(
    sink: &ObjectStoreSink,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<Vec<ObjectMeta>> {
    if limit == 0 {
        return Ok(Vec::new());
    }
    // The store takes whole components; the rest of the prefix is compared here.
    let directory = prefix.rfind('/').and_then(|end| prefix.get(..end)).unwrap_or_default();
    let whole = format!("{}{directory}", sink.root);
    let Ok(directory) = Path::parse(&whole) else { return Ok(Vec::new()) };
    if !plausible(prefix) {
        return Ok(Vec::new());
    }
    let directory = Some(directory).filter(|path| !path.as_ref().is_empty());
    let mut listing = match after {
        Some(after) => sink.store.list_with_offset(directory.as_ref(), &sink.path(after)?),
        None => sink.store.list(directory.as_ref()),
    };
    let mut found: BTreeMap<ObjectKey, ObjectMeta> = BTreeMap::new();
    while let Some(next) = sink.timed(0, listing.next()).await? {
        let next = next.map_err(|e| error::of(&e, &sink.place, "list"))?;
        let Some(text) = next.location.as_ref().strip_prefix(&sink.root) else { continue };
        if sink.ordered && text > prefix && !text.starts_with(prefix) {
            break;
        }
        // What is no key was put there by someone else.
        let Ok(key) = ObjectKey::new(text) else { continue };
        if !text.starts_with(prefix) || after.is_some_and(|after| key <= *after) {
            continue;
        }
        let modified = next.last_modified;
        let created = Timestamp::new(modified.timestamp(), modified.timestamp_subsec_nanos());
        found.insert(key.clone(), ObjectMeta { key, len: next.size, created: Some(created) });
        if found.len() > limit {
            found.pop_last();
        }
        if sink.ordered && found.len() == limit {
            break;
        }
    }
    Ok(found.into_values().collect())
}

/// Whether any key can start like that; `object_store` would make something else of other prefixes.
fn plausible(prefix: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    let starts = !prefix.starts_with(['/', '.']) && !prefix.contains("//") && !prefix.contains("/.");
    starts && prefix.bytes().all(good)
}
