//! Archives of logs: segments are put once, under names that were never condemned, and read back whole.
//!
//! No session stands while a log is archived. Who archives looks first at what is there and at what is condemned, puts, and looks
//! once more: a name that was condemned before the put came through holds nothing, and the next one is taken. The rules are
//! those of `docs/decisions/0022-the-protocol-as-modelled.md`, the objects those of `docs/FORMAT.md`.

mod archive;
mod listed;
mod outline;
mod read;
mod replicate;
