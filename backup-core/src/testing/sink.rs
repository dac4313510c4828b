//! What every [`Sink`] must do, as a suite that anyone can run over their own.

use std::fmt::{Debug, Display};
use std::sync::Arc;

use super::broken;
use crate::{GetRange, ObjectKey, PutOutcome, Random, Result, Sink, SystemRandom};

mod listing;
mod putting;
mod racing;
mod reading;

/// Checks every sentence of the contract of [`Sink`] and returns an error that names the one that is broken.
///
/// It works below a random prefix and deletes what it made, so that a store with other objects can be checked; after an
/// error its objects stay. About 1,500 objects and 40 MiB are written. Races are real only in a multi-threaded tokio
/// runtime. Durability cannot be checked from within: see the crash tests of the local sink for how that is done.
pub async fn conformance(sink: Arc<dyn Sink>) -> Result<()> {
    let mut random = [0; 8];
    SystemRandom.fill(&mut random)?;
    let place = Place { sink, prefix: format!("conformance/{}", hex::encode(random)) };
    putting::laws(&place.below("putting")).await?;
    reading::laws(&place.below("reading")).await?;
    listing::laws(&place.below("listing")).await?;
    racing::laws(&place.below("racing")).await?;
    place.clear().await
}

/// A sink and the prefix below which a part of the suite works.
#[derive(Debug, Clone)]
struct Place {
    sink: Arc<dyn Sink>,
    prefix: String,
}

impl Place {
    fn below(&self, name: &str) -> Self {
        Self { sink: Arc::clone(&self.sink), prefix: format!("{}/{name}", self.prefix) }
    }

    fn key(&self, name: &str) -> Result<ObjectKey> {
        ObjectKey::new(format!("{}/{name}", self.prefix))
    }

    /// Creates an object that is new.
    async fn create(&self, name: &str, bytes: &[u8]) -> Result<ObjectKey> {
        let key = self.key(name)?;
        let outcome = self.sink.put(&key, bytes.to_vec().into()).await;
        let outcome = outcome.map_err(|error| broken(format_args!("`{name}` can be created"), error))?;
        expect("the put of a new key says Created", &outcome, &PutOutcome::Created)?;
        Ok(key)
    }

    /// Holds all of an object against what it should be.
    async fn read_whole(&self, law: impl Display, key: &ObjectKey, expected: &[u8]) -> Result<()> {
        let fetched = self.sink.get(key, GetRange::Full).await.map_err(|error| broken(&law, error))?;
        expect_bytes(law, &fetched.bytes, expected)
    }

    /// Deletes everything below the prefix.
    async fn clear(&self) -> Result<()> {
        let below = format!("{}/", self.prefix);
        loop {
            let page = self.sink.list(&below, None, 1000).await?;
            if page.is_empty() {
                return Ok(());
            }
            for meta in page {
                self.sink.delete(&meta.key).await?;
            }
        }
    }
}

/// Holds what was found against what the law says.
fn expect<T: PartialEq + std::fmt::Debug>(
    law: impl std::fmt::Display,
    found: &T,
    expected: &T,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(broken(law, format_args!("{} instead of {}", brief(found), brief(expected))))
}

/// Holds the bytes that were read against those that were put.
fn expect_bytes(law: impl Display, found: &[u8], expected: &[u8]) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let same = found.iter().zip(expected).take_while(|(a, b)| a == b).count();
    Err(broken(
        law,
        format_args!("{} bytes instead of {}, different from byte {same} on", found.len(), expected.len()),
    ))
}

/// The beginning of a value's text: long listings need not fill the terminal.
fn brief(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    if text.len() <= 300 { text } else { text.chars().take(300).chain("...".chars()).collect() }
}

/// Bytes that differ from object to object and do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}
