//! What the benches measure, which stand in `benches/`: `stages` for each step of the hot path, `whole` for backup and
//! restore. `counts` runs each step once, so that its instructions can be counted: see `.ci/counts`.
//!
//! ```text
//! cargo bench -p backup-benches                    # everything
//! cargo bench -p backup-benches --bench stages cut # one stage
//! ```

pub mod data;
mod nowhere;
pub mod stages;

pub use data::Kind;
pub use nowhere::Nowhere;
