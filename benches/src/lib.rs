//! Data for the benches, which stand in `benches/`: `stages` for each step of the hot path.
//!
//! ```text
//! cargo bench -p backup-benches                    # everything
//! cargo bench -p backup-benches --bench stages cut # one stage
//! ```

pub mod data;

pub use data::Kind;
