//! What stands under `control/`: who is at work, what is condemned, what is forgotten, what is final.
//!
//! [`ControlListing`] is what names and times say, [`Control`] what the documents say. What follows from it for packs
//! is [`Bars`]. The rules are those of `docs/decisions/0022-the-protocol-as-modelled.md`.

mod bars;
mod listing;
mod reading;

pub(crate) use bars::Bars;
pub(crate) use listing::ControlListing;
pub(crate) use reading::{Control, DigestCache, Forgotten, get};
