//! What can be had again after damage: the index from the packs, and snapshots without what is lost.

mod heal;
mod index;
mod snapshots;

pub(super) use snapshots::REPAIRED_TAG;
