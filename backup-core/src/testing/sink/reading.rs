//! Reading whole objects and parts.

use super::{Place, expect, expect_bytes, noise};
use crate::testing::broken;
use crate::{ErrorKind, GetRange, ObjectKey, Result};

pub(super) async fn laws(place: &Place) -> Result<()> {
    let bytes = noise(2, 1000);
    let key = place.create("thousand", &bytes).await?;
    for (start, end) in [(0, 0), (0, 1), (5, 10), (500, 500), (999, 1000), (1000, 1000), (1, 1000), (0, 1000)]
    {
        part(place, &key, GetRange::Bounded(start..end), &bytes).await?;
    }
    for count in [0, 1, 999, 1000, 1001, 1 << 40, u64::MAX] {
        part(place, &key, GetRange::Suffix(count), &bytes).await?;
    }
    part(place, &key, GetRange::Full, &bytes).await?;
    for (start, end) in
        [(0, 1001), (999, 1001), (1000, 1001), (1001, 1001), (0, u64::MAX), (u64::MAX, u64::MAX)]
    {
        out_of_bounds(place, &key, start, end).await?;
    }
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is asked for here")]
    let reversed = place.sink.get(&key, GetRange::Bounded(10..5)).await;
    expect("a range that ends before it starts is an error", &reversed.is_err(), &true)?;

    let empty = place.create("empty", b"").await?;
    for range in [GetRange::Full, GetRange::Bounded(0..0), GetRange::Suffix(0), GetRange::Suffix(9)] {
        part(place, &empty, range, b"").await?;
    }
    out_of_bounds(place, &empty, 0, 1).await?;
    what_does_not_exist(place).await
}

async fn part(place: &Place, key: &ObjectKey, range: GetRange, bytes: &[u8]) -> Result<()> {
    let law = format!("{range:?} of {} bytes reads what it names", bytes.len());
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let resolved = range.resolve(length)?;
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let expected = bytes.get(at(resolved.start)..at(resolved.end)).unwrap_or_default();
    let fetched = place.sink.get(key, range).await.map_err(|error| broken(&law, error))?;
    expect_bytes(&law, &fetched.bytes, expected)?;
    expect("a get of a part tells the whole object's length", &fetched.object_len, &length)
}

async fn out_of_bounds(place: &Place, key: &ObjectKey, start: u64, end: u64) -> Result<()> {
    let law = format!("bytes {start}..{end}, which are not all there, are Corruption");
    let found = place.sink.get(key, GetRange::Bounded(start..end)).await.map(|fetched| fetched.bytes.len());
    expect(law, &found.map_err(|error| error.kind()), &Err(ErrorKind::Corruption))
}

async fn what_does_not_exist(place: &Place) -> Result<()> {
    place.create("there/a", b"a").await?;
    // Beside an object, above one, below one, and where nothing is at all.
    for name in ["there/b", "there", "there/a/b", "nowhere/a"] {
        let key = place.key(name)?;
        for range in [GetRange::Full, GetRange::Bounded(0..1), GetRange::Bounded(0..0), GetRange::Suffix(1)] {
            let law = format!("{range:?} of what does not exist is NotFound");
            let found = place.sink.get(&key, range).await.map(|fetched| fetched.bytes.len());
            expect(law, &found.map_err(|error| error.kind()), &Err(ErrorKind::NotFound))?;
        }
    }
    Ok(())
}
