//! Reading: any range, by many at once; what is damaged or away fails, and nothing else does.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::{Scratch, largest, pseudo_random};
use crate::mounted::Mounted;

/// EIO, errno(3).
const EIO: i32 = 5;
const PAGE: usize = 4096;

#[test]
fn ranges_are_right_wherever_they_begin_and_however_many_read_at_once() {
    let scratch = Scratch::with_repository();
    let content = pseudo_random(24_000_000, 5);
    fs::write(scratch.path("tree/big"), &content).unwrap();
    scratch.snapshot();
    let mounted = Mounted::start(&scratch, &[]);
    let tree = mounted.path("latest").join("tree");
    std::thread::scope(|scope| {
        for reader in 0..6_u64 {
            let (tree, content) = (&tree, &content);
            scope.spawn(move || {
                let file = File::open(tree.join("big")).unwrap();
                let draws = pseudo_random(600 * 8, reader + 100);
                for draw in draws.chunks_exact(8) {
                    let number =
                        |bytes: &[u8]| bytes.iter().fold(0_usize, |all, byte| all << 8 | usize::from(*byte));
                    let start = number(&draw[..4]) % (content.len() + 10);
                    let len = number(&draw[4..7]) % 300_000;
                    let mut read = vec![0; len];
                    let mut done = 0;
                    while done < len {
                        match file.read_at(&mut read[done..], (start + done) as u64).unwrap() {
                            0 => break,
                            count => done += count,
                        }
                    }
                    let expected = content.get(start..).unwrap_or_default();
                    let expected = &expected[..len.min(expected.len())];
                    assert!(read[..done] == *expected, "{len} bytes from {start} on");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| assert!(fs::read(tree.join("big")).unwrap() == content));
        }
        scope.spawn(|| {
            assert_eq!(fs::read(tree.join("deep/deeper/c.txt")).unwrap(), "gamma\n".repeat(10_000).as_bytes())
        });
    });
    assert_eq!(mounted.errors(), "");
    mounted.unmount(0);
}

#[test]
fn damage_fails_the_reads_that_need_it_and_no_other() {
    let scratch = Scratch::with_repository();
    let content = pseudo_random(24_000_000, 6);
    fs::write(scratch.path("tree/big"), &content).unwrap();
    scratch.snapshot();
    let pack = largest(&scratch.path("repository/data"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();

    let mounted = Mounted::start(&scratch, &[]);
    let tree = mounted.path("latest").join("tree");
    let (good, bad) = pages(&tree.join("big"), &content);
    println!("{good} pages can be read, {bad} cannot");
    assert!(bad > 0 && bad <= 3_000_000 / PAGE, "{bad} of {good}");
    // The same again, and as a whole: no wrong byte, and not an end of file either.
    assert_eq!(pages(&tree.join("big"), &content), (good, bad));
    assert_eq!(fs::read(tree.join("big")).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(fs::metadata(tree.join("big")).unwrap().len(), content.len() as u64);
    // Whatever else there is can be read.
    for name in ["a.txt", "deep/b.bin", "deep/deeper/c.txt"] {
        assert!(fs::read(tree.join(name)).unwrap() == fs::read(scratch.path("tree").join(name)).unwrap());
    }
    let errors = mounted.errors();
    assert_eq!(errors.matches("damaged").count(), 1, "{errors}");
    assert!(errors.contains("tree/big") && errors.contains("data/"), "{errors}");
    mounted.unmount(3);
}

/// Reads a file page by page: how many can be read, all of them rightly, and how many cannot.
fn pages(path: &Path, content: &[u8]) -> (usize, usize) {
    let file = File::open(path).unwrap();
    let (mut good, mut bad) = (0, 0);
    for (number, expected) in content.chunks(PAGE).enumerate() {
        let mut page = [0; PAGE];
        match file.read_at(&mut page, (number * PAGE) as u64) {
            Ok(count) => {
                assert!(page[..count] == *expected, "page {number}");
                good += 1;
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(EIO), "page {number}");
                bad += 1;
            }
        }
    }
    (good, bad)
}

#[test]
fn a_directory_whose_entries_are_damaged_says_so_and_the_rest_is_there() {
    let scratch = Scratch::with_repository();
    fs::create_dir(scratch.path("tree/many")).unwrap();
    for number in 0..6_000 {
        fs::write(scratch.path(&format!("tree/many/{number} {}", "n".repeat(200))), "").unwrap();
    }
    scratch.snapshot();
    let pack = largest(&scratch.path("repository/meta"));
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&pack).unwrap();
    fs::write(&pack, bytes).unwrap();
    let mounted = Mounted::start(&scratch, &[]);
    let tree = mounted.path("latest").join("tree");
    let listed: Vec<_> = match fs::read_dir(tree.join("many")) {
        Ok(listing) => listing.collect(),
        Err(error) => vec![Err(error)],
    };
    let failed: Vec<_> = listed.iter().filter_map(|entry| entry.as_ref().err()?.raw_os_error()).collect();
    println!("{} names of 6000, then {failed:?}", listed.len());
    assert!(!failed.is_empty() && failed.iter().all(|error| *error == EIO), "{failed:?}");
    assert!(mounted.errors().contains("damaged"), "{}", mounted.errors());
    // They hold the directory open.
    drop(listed);
    mounted.unmount(3);
}

#[test]
fn a_store_that_is_away_fails_reads_and_serves_again_when_it_is_back() {
    let scratch = Scratch::with_repository();
    let content = pseudo_random(3_000_000, 8);
    fs::write(scratch.path("tree/big"), &content).unwrap();
    scratch.snapshot();
    let mounted = Mounted::start(&scratch, &[]);
    let big = mounted.path("latest").join("tree/big");
    let size = fs::metadata(&big).unwrap().len();
    assert_eq!(size, content.len() as u64);
    fs::rename(scratch.path("repository/data"), scratch.path("away")).unwrap();
    assert_eq!(fs::read(&big).unwrap_err().raw_os_error(), Some(EIO));
    fs::rename(scratch.path("away"), scratch.path("repository/data")).unwrap();
    assert!(fs::read(&big).unwrap() == content);
    mounted.unmount(3);
}
