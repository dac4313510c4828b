//! What needs a kernel with FUSE: `.ci/test` leaves these out, and says so, where there is none.

mod ending;
mod reading;
mod shown;
