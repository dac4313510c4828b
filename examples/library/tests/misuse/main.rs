//! What one should not do with the library, done: every call answers with a clear error or does what can be done, none
//! hangs, none panics, and the repository stays valid.

// Helpers of tests may panic, and here panicking is what some are for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

mod bad;
mod cancel;
mod common;
mod panics;
mod places;
mod together;
mod wrong;
