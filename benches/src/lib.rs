//! Data for the benches, which stand in `benches/`: `stages` for each step of the hot path, `whole` for backup and restore.
//!
//! ```text
//! cargo bench -p backup-benches                    # everything
//! cargo bench -p backup-benches --bench stages cut # one stage
//! ```

pub mod data;
mod nowhere;

pub use data::Kind;
pub use nowhere::Nowhere;
