//! Listings: order, prefixes, paging.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{Place, expect};
use crate::{ObjectKey, ObjectMeta, Result};

/// Keys whose order by bytes differs from that of directories, of letters regardless of case, and of numbers.
const NAMES: [&str; 14] =
    ["-", "9", "10", "B", "Z/1", "_u", "a-b", "a.b", "a/b", "a/c-d", "a/c/d", "a0", "aa/a", "b/a/a/a"];

/// Objects beyond what common stores return in one answer.
const MANY: usize = 1040;

pub(super) async fn laws(place: &Place) -> Result<()> {
    few(&place.below("few")).await?;
    many(&place.below("many")).await
}

async fn few(place: &Place) -> Result<()> {
    let mut model = BTreeMap::new();
    for (number, name) in NAMES.iter().rev().enumerate() {
        let bytes = vec![b'x'; number];
        let key = place.create(name, &bytes).await?;
        model.insert(key, u64::try_from(number).unwrap_or_default());
        compare("an object is listed as soon as its put returned", place, &model, "", None, 100).await?;
    }
    let mut prefixes: Vec<&str> =
        NAMES.iter().flat_map(|name| (0..=name.len()).filter_map(|end| name.get(..end))).collect();
    prefixes.extend(["a/b/", "a/bb", "aaa", "zz", "/", "a//", "..", "./", "A", "b/a/a/a/a", "%"]);
    prefixes.sort_unstable();
    prefixes.dedup();
    for prefix in prefixes {
        compare("a prefix is a plain prefix of the key's text", place, &model, prefix, None, 100).await?;
    }
    for after in ["-", "0", "9", "a-b", "a-c", "a.b", "a/a", "a/b", "a/c", "a/c/d", "a/z", "aa", "zz/zz"] {
        let after = place.key(after)?;
        for (prefix, limit) in [("", 100), ("", 1), ("a", 3), ("a/", 100), ("a/c/", 100)] {
            compare("a listing begins after the given key", place, &model, prefix, Some(&after), limit)
                .await?;
        }
    }
    outside_of_the_prefix(place, &model).await?;
    for limit in 0..=NAMES.len() + 1 {
        compare("a listing has at most `limit` objects", place, &model, "", None, limit).await?;
    }
    for limit in [1, 2, 5] {
        pages(place, &model, limit).await?;
    }
    times_stay(place).await
}

/// Keys before and after everything of the prefix; and the empty prefix, which names every object of the store.
async fn outside_of_the_prefix(place: &Place, model: &BTreeMap<ObjectKey, u64>) -> Result<()> {
    let before = ObjectKey::new(&place.prefix)?;
    compare("a key before the prefix hides nothing", place, model, "", Some(&before), 100).await?;
    let beyond = ObjectKey::new(format!("{}0", place.prefix))?;
    compare("beyond the last key there is nothing", place, model, "", Some(&beyond), 100).await?;
    let listed = place.sink.list("", Some(&before), 3).await?;
    let keys: Vec<_> = listed.iter().map(|meta| &meta.key).collect();
    expect("the empty prefix lists everything", &keys, &model.keys().take(3).collect())
}

async fn pages(place: &Place, model: &BTreeMap<ObjectKey, u64>, limit: usize) -> Result<()> {
    let prefix = format!("{}/", place.prefix);
    let mut all: Vec<ObjectMeta> = Vec::new();
    loop {
        let after = all.last().map(|meta| meta.key.clone());
        let page = place.sink.list(&prefix, after.as_ref(), limit).await?;
        let last = page.len() < limit;
        all.extend(page);
        if last || all.len() > model.len() {
            break;
        }
    }
    let keys: Vec<_> = all.iter().map(|meta| &meta.key).collect();
    expect(format_args!("pages of {limit} make the whole listing"), &keys, &model.keys().collect())
}

async fn times_stay(place: &Place) -> Result<()> {
    let prefix = format!("{}/", place.prefix);
    let first = place.sink.list(&prefix, None, 100).await?;
    let second = place.sink.list(&prefix, None, 100).await?;
    expect("what a listing says of an object does not change", &second, &first)
}

async fn many(place: &Place) -> Result<()> {
    let put =
        |number: usize| async move { place.create(&format!("{:02x}/{number:05}", number % 7), b"m").await };
    let keys: Vec<ObjectKey> = stream::iter((0..MANY).map(put)).buffer_unordered(16).try_collect().await?;
    let model: BTreeMap<ObjectKey, u64> = keys.into_iter().map(|key| (key, 1)).collect();
    for limit in [1000, 1001, MANY, MANY * 2] {
        compare("a listing has as many objects as asked for", place, &model, "", None, limit).await?;
    }
    pages(place, &model, 400).await
}

async fn compare(
    law: &str,
    place: &Place,
    model: &BTreeMap<ObjectKey, u64>,
    prefix: &str,
    after: Option<&ObjectKey>,
    limit: usize,
) -> Result<()> {
    let prefix = format!("{}/{prefix}", place.prefix);
    let wanted = model
        .iter()
        .filter(|(key, _)| key.as_str().starts_with(&prefix) && after.is_none_or(|after| *key > after));
    let expected: Vec<(&ObjectKey, u64)> = wanted.take(limit).map(|(key, len)| (key, *len)).collect();
    let listed = place.sink.list(&prefix, after, limit).await?;
    let found: Vec<(&ObjectKey, u64)> = listed.iter().map(|meta| (&meta.key, meta.len)).collect();
    expect(format_args!("{law} (prefix `{prefix}`, after {after:?}, limit {limit})"), &found, &expected)
}
