//! Sinks around sinks. Each forwards all four calls.

mod cached;
mod opening;
mod prefixed;
mod rate_limited;
mod read_only;
mod retry;

pub use cached::Cached;
pub use opening::Opening;
pub use prefixed::Prefixed;
pub use rate_limited::RateLimited;
pub use read_only::ReadOnly;
pub use retry::{Retry, RetryPolicy};
