//! Objects that cannot be read at once: storage classes that keep them on tape, or as if on tape.

use std::fmt;

use async_trait::async_trait;

use crate::{ObjectKey, Result};

/// How much an object's return may cost. What each means in time and money is the store's affair; Amazon's documentation has
/// [a table](https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThawSpeed {
    /// Whenever it is cheapest: within days.
    Bulk,
    /// As usual: within hours.
    #[default]
    Standard,
    /// As soon as possible, where the class has that.
    Expedited,
}

/// Whether an object can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can be read.
    Ready,
    /// It was asked for, now or before, and is not there yet.
    UnderWay,
}

/// Asks a store for objects that it keeps in a class from which they cannot be read at once
/// ([`ErrorKind::Cold`](crate::ErrorKind::Cold)).
///
/// It goes with a [`Sink`](crate::Sink) of the same place, and names objects by the same keys.
#[async_trait]
pub trait Thaw: fmt::Debug + Send + Sync + 'static {
    /// Asks for an object to be readable for so many days. Asking again does no harm, and says how far it is; it may make the
    /// time begin anew. An object that can be read anyway is [`Readiness::Ready`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such object, and those of the store.
    async fn thaw(&self, key: &ObjectKey, days: u32, speed: ThawSpeed) -> Result<Readiness>;
}
