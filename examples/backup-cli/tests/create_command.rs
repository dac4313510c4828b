//! Snapshots of what a program prints.

mod common;

use common::Scratch;

#[test]
fn a_program_that_fails_makes_no_snapshot() {
    let scratch = Scratch::with_repository();
    let report = scratch.json(0, ["create", "command", "--name", "dumps/words", "--", "printf", "one two"]);
    assert_eq!(report["outcome"], "complete");
    assert_eq!(scratch.ok(["cat", "latest", "dumps/words"]).out, "one two");
    for command in
        [&["sh", "-c", "echo almost; exit 3"][..], &["no-such-program"], &["sh", "-c", "kill -9 $$"]]
    {
        let ran = scratch.run(["create", "command", "--name", "x", "--"].iter().chain(command)).expect(1);
        assert!(ran.err.contains("backup: "), "{ran:?}");
    }
    let slow = scratch
        .run(["create", "command", "--name", "x", "--timeout", "200ms", "--", "sleep", "60"])
        .expect(1);
    assert!(!slow.err.is_empty());
    assert_eq!(scratch.json(0, ["list"])["snapshots"].as_array().unwrap().len(), 1);
}
