//! For tests, behind the feature `testing`: conformance suites for implementations of the contracts, and sinks that
//! record or fail.
//!
//! The suites are for everyone who implements a contract. They return an error that names the law that is broken, so
//! they run in any test framework:
//!
//! ```
//! # async fn example(my_sink: std::sync::Arc<dyn backup_core::Sink>) -> backup_core::Result<()> {
//! backup_core::testing::sink::conformance(my_sink).await?;
//! # Ok(())
//! # }
//! ```

pub mod failing;
pub mod fault;
pub mod recording;
pub mod retention;
pub mod sink;
pub mod source;
pub mod target;
pub mod transform;

pub use failing::FailingSink;
pub use fault::{Fault, Manner};
pub use recording::{Call, Operation, RecordingSink};

use crate::Error;

/// The error that names a broken law of a contract and what was found instead.
pub fn broken(law: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
    Error::internal(format!("this contract is broken: {law}; found: {found}"))
}
