//! What patterns leave out is what git leaves out, for patterns and trees made at random.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use backup_core::EntryKind;
use backup_sources::FilesSource;

/// Names that patterns have a chance to match.
const WORDS: &[&str] =
    &["a", "b", "ab", "a.o", "b.tmp", ".x", "build", "[a]", "a b ", "{a,b}", "#a", "!b", "é", "A"];
const PIECES: &[&str] = &[
    "a",
    "b",
    "ab",
    "*",
    "*",
    "**",
    "**/",
    "/",
    "/",
    "?",
    ".o",
    ".tmp",
    ".x",
    "build",
    "[ab]",
    "[!a]",
    "[^b]",
    "[a-z]",
    "[[:alpha:]]",
    "[]a]",
    "\\*",
    "\\[",
    "{a,b}",
    "!",
    "#a",
    "\\#a",
    "\\!b",
    " ",
    "\\ ",
    "é",
    "x",
    "[a",
    "\\",
];

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Files that git would not leave out; none without git.
fn of_git(work: &Path, tree: &Path, patterns: &Path) -> Option<BTreeSet<Vec<u8>>> {
    let git = |arguments: &[&str]| {
        Command::new("git")
            .arg(format!("--git-dir={}", work.join("git").display()))
            .arg(format!("--work-tree={}", tree.display()))
            .args(arguments)
            .current_dir(tree)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
    };
    if !work.join("git").exists() && git(&["init", "--quiet"]).is_err() {
        return None;
    }
    let from = format!("--exclude-from={}", patterns.display());
    let listed = git(&["ls-files", "-z", "--others", &from]).unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    Some(listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

async fn of_ours(tree: &Path, patterns: &Path) -> BTreeSet<Vec<u8>> {
    let source = FilesSource::builder().path(tree).exclude_file(patterns).build().unwrap();
    let prefix = format!("{}/", tree.strip_prefix("/").unwrap().display());
    let walked = common::walk(&source).await;
    assert_eq!(walked.skipped, []);
    walked
        .entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .map(|entry| entry.name.as_bytes().strip_prefix(prefix.as_bytes()).unwrap().to_vec())
        .collect()
}

fn make_tree(directory: &Path, depth: usize, random: &mut Random) {
    fs::create_dir_all(directory).unwrap();
    for word in WORDS {
        match random.below(5) {
            0 | 1 => fs::write(directory.join(word), word).unwrap(),
            2 | 3 if depth > 0 => make_tree(&directory.join(word), depth - 1, random),
            _ => {}
        }
    }
}

fn pattern(random: &mut Random) -> String {
    let negated = if random.below(4) == 0 { "!" } else { "" };
    let pieces: String = (0..=random.below(5)).map(|_| PIECES[random.below(PIECES.len())]).collect();
    format!("{negated}{pieces}")
}

#[tokio::test]
async fn patterns_leave_out_what_git_leaves_out() {
    let rounds = if std::env::var_os("BACKUP_LONG").is_some() { 5_000 } else { 150 };
    let seed = std::env::var("BACKUP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    let mut random = Random(seed);
    let scratch = tempfile::tempdir().unwrap();
    let tree = scratch.path().join("tree");
    make_tree(&tree, 3, &mut random);
    let list = scratch.path().join("patterns");
    let mut left_out = 0;
    for round in 0..rounds {
        let mut patterns = Vec::new();
        while patterns.len() < 1 + round % 6 {
            let pattern = pattern(&mut random);
            // git passes over in silence what is no pattern; here it is refused, in a test of its own.
            fs::write(&list, format!("{pattern}\n")).unwrap();
            if FilesSource::builder().path(&tree).exclude_file(&list).build().is_ok() {
                patterns.push(pattern);
            }
        }
        fs::write(&list, format!("{}\n", patterns.join("\n"))).unwrap();
        let Some(expected) = of_git(scratch.path(), &tree, &list) else {
            println!("not tested: git is not installed");
            return;
        };
        let found = of_ours(&tree, &list).await;
        let text = |names: Vec<&Vec<u8>>| {
            names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            text(found.difference(&expected).collect()),
            text(expected.difference(&found).collect()),
            "seed {seed}, round {round}: {patterns:?}: ours has on the left what git leaves out"
        );
        left_out += usize::from(expected.len() < 100);
    }
    assert!(left_out > rounds / 20, "the patterns must match something: {left_out}");
}
