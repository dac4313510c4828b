//! Creating and deleting.

use super::{Place, expect, expect_bytes, noise};
use crate::testing::broken;
use crate::{ErrorKind, GetRange, PutOutcome, Result};

pub(super) async fn laws(place: &Place) -> Result<()> {
    nothing_is_replaced(place).await?;
    empty_and_large_objects(place).await?;
    every_permitted_key(place).await?;
    deleting(place).await?;
    a_dropped_put(place).await
}

async fn nothing_is_replaced(place: &Place) -> Result<()> {
    let key = place.create("once", b"first").await?;
    for bytes in ["first", "other", "", "a longer one"] {
        let outcome = place.sink.put(&key, bytes.into()).await?;
        expect("the put of an existing key says AlreadyExists", &outcome, &PutOutcome::AlreadyExists)?;
        place.read_whole("a put never replaces an object", &key, b"first").await?;
    }
    Ok(())
}

async fn empty_and_large_objects(place: &Place) -> Result<()> {
    let law = "what is read is what was put";
    for (name, length) in [("empty", 0), ("byte", 1), ("page", 4096), ("large", (17 << 20) + 3)] {
        let bytes = noise(1, length);
        let key = place.create(name, &bytes).await?;
        place.read_whole(law, &key, &bytes).await?;
        let tail = place.sink.get(&key, GetRange::Suffix(10)).await.map_err(|error| broken(law, error))?;
        expect_bytes(law, &tail.bytes, bytes.get(length.saturating_sub(10)..).unwrap_or_default())?;
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        expect("a get tells the object's length", &tail.object_len, &length)?;
    }
    Ok(())
}

/// All characters that a key may have, in places where stores, shells or file systems could stumble.
async fn every_permitted_key(place: &Place) -> Result<()> {
    let long = ["x".repeat(120), "y".repeat(120)].join("/");
    let all: String = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("-_.".chars()).collect();
    for name in
        ["-", "_", "-rf", "a..b", "ends.", "ends-", "nul", "index.html", "a/b/c/d/e/f/g/h", &all, &long]
    {
        let key = place.create(name, name.as_bytes()).await?;
        place.read_whole(format_args!("the key `{name}` is possible"), &key, name.as_bytes()).await?;
        let listed = place.sink.list(key.as_str(), None, 1).await?;
        let found = listed.first().is_some_and(|meta| meta.key == key);
        expect(format_args!("the key `{name}` is listed as it was put"), &found, &true)?;
    }
    Ok(())
}

async fn deleting(place: &Place) -> Result<()> {
    let key = place.create("deleted/one", b"1").await?;
    let neighbour = place.create("deleted/two", b"2").await?;
    let above = place.key("deleted")?;
    let below = place.key("deleted/two/three")?;
    for missing in [&place.key("never")?, &place.key("never/ever")?, &above, &below] {
        place
            .sink
            .delete(missing)
            .await
            .map_err(|error| broken("deleting what does not exist succeeds", error))?;
    }
    for _ in 0..2 {
        place.sink.delete(&key).await.map_err(|error| broken("deleting twice succeeds", error))?;
        let gone = place.sink.get(&key, GetRange::Full).await.map_err(|error| error.kind()).err();
        expect("a deleted object is not found", &gone, &Some(ErrorKind::NotFound))?;
        let listed = place.sink.list(key.as_str(), None, 10).await?.len();
        expect("a deleted object is not listed", &listed, &0)?;
    }
    place.read_whole("deleting leaves other objects alone", &neighbour, b"2").await?;
    place.create("deleted/one", b"new").await?;
    place.read_whole("after a delete a key can be created again", &key, b"new").await
}

/// Polls puts a few times and drops them: what they leave is the whole object or nothing.
async fn a_dropped_put(place: &Place) -> Result<()> {
    for polls in 0..4_u64 {
        let key = place.key(&format!("dropped-{polls}"))?;
        let bytes = noise(polls, 300_000);
        {
            let mut put = place.sink.put(&key, bytes.clone().into());
            for _ in 0..polls {
                if futures_util::poll!(&mut put).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        match place.sink.get(&key, GetRange::Full).await {
            Ok(there) => {
                expect_bytes("a dropped put leaves the whole object or nothing", &there.bytes, &bytes)?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(broken("a dropped put leaves the whole object or nothing", error)),
        }
        place.sink.put(&key, bytes.clone().into()).await?;
        place.read_whole("after a dropped put the same put succeeds", &key, &bytes).await?;
    }
    Ok(())
}
