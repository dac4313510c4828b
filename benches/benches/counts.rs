//! Each stage of the hot path once, for a program that counts instructions: `counted` is all that it is to count.
//!
//! Prints a line for each stage, in the order in which they run: its name and its bytes.

use backup_benches::stages::{self, Work};

fn main() {
    for stage in stages::all() {
        let mut work = stage.prepare();
        // Contexts and tables that are made once are there.
        work();
        counted(&mut work);
        println!("{}/{}\t{}", stage.group, stage.name, stage.bytes);
    }
}

#[inline(never)]
fn counted(work: &mut Work) {
    work();
}
