//! Each stage of the hot path once, for a program that counts instructions: `counted` is all that it is to count.
//!
//! Prints a line for each stage, in the order in which they run: its name and its bytes.

use backup_benches::stages::{self, Work};

fn main() {
    for stage in stages::all() {
        let mut work = stage.prepare();
        // Contexts and tables that are made once are there.
        work();
        let _ = counted(&mut work);
        println!("{}/{}\t{}", stage.group, stage.name, stage.bytes);
    }
}

// Something follows, so that this is left by a return and not by a jump, which the counting program would not see.
#[inline(never)]
fn counted(work: &mut Work) -> usize {
    work();
    std::hint::black_box(0)
}
