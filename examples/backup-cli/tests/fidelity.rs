//! A tree with every attribute survives backup and restore, as `rsync` sees it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use common::Scratch;

fn sh(script: &str, directory: &Path) {
    let done = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What `rsync` would still have to do to make `copy` equal to `original`: nothing, one hopes.
fn differences(original: &Path, copy: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let rsync = Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"])
        .args([slash(original), slash(copy)])
        .output()
        .expect("rsync must be installed: apt-get install rsync");
    assert!(rsync.status.success(), "{}", String::from_utf8_lossy(&rsync.stderr));
    String::from_utf8_lossy(&rsync.stdout).into_owned()
}

fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("plain/deep/deeper")).unwrap();
    fs::create_dir(root.join("empty directory")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("plain/text"), "some text\n".repeat(1000)).unwrap();
    fs::write(root.join("plain/deep/deeper/big"), common::pseudo_random(5_000_000, 3)).unwrap();
    fs::write(root.join("new\nline"), "a name with a line end").unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"not \xff utf-8")), "a name that is no text").unwrap();
    fs::write(root.join("n".repeat(255)), "a long name").unwrap();
    for mode in [0o000, 0o400, 0o444, 0o640, 0o755, 0o777] {
        let file = root.join(format!("mode-{mode:o}"));
        fs::write(&file, format!("{mode:o}")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    }
    symlink("plain/text", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    symlink("../..", root.join("plain/upwards")).unwrap();
    fs::hard_link(root.join("plain/text"), root.join("again")).unwrap();
    fs::hard_link(root.join("plain/text"), root.join("plain/deep/and again")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(20_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"an island", 10_000_000).unwrap();
    xattr::set(root.join("plain/text"), "user.comment", b"\0 any bytes \xff").unwrap();
    xattr::set(root.join("plain"), "user.directory", b"yes").unwrap();
    sh("setfacl -m u:12345:rw,g:54321:r plain/text; setfacl -d -m u:12345:rwx plain/deep", root);
    sh("mkfifo pipe; touch -h -d '1969-12-31 23:59:59.123456789 UTC' dangling", root);
    sh(
        "touch -d '2100-02-03 04:05:06.987654321 UTC' plain/deep; touch -d '1902-01-01 00:00:01.5 UTC' empty",
        root,
    );
    if is_root() {
        sh("chown 1234:4321 plain/text; chown -h 77:88 dangling; chown 5:6 plain/deep", root);
        sh(
            "cp /bin/true setuid; chmod 6755 setuid; mkdir sticky; chmod 1777 sticky; mkdir setgid; chmod 2755 setgid",
            root,
        );
        sh("mknod char c 1 3; mknod block b 7 200; chown 9:9 pipe", root);
    }
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket"));
    drop(socket.unwrap());
    sh("touch -d '2001-02-03 04:05:06.000000007 UTC' plain/deep/deeper .", root);
}

#[test]
fn every_attribute_survives() {
    let scratch = Scratch::with_repository();
    let tree = scratch.path("odd");
    fs::create_dir(&tree).unwrap();
    make_tree(&tree);
    let odd = scratch.text("odd");
    let report = scratch.json(0, ["create", "files", &odd]);
    assert_eq!(report["outcome"], "complete");
    scratch.ok(["restore", "latest", "--to", &scratch.text("out"), "--devices"]);
    let copy = scratch.path("out").join(scratch.name("odd"));
    assert_eq!(differences(&tree, &copy), "");
    // And rsync does see differences where there are some.
    fs::write(copy.join("plain/deep/deeper/big"), "other").unwrap();
    assert!(differences(&tree, &copy).contains("plain/deep/deeper/big"));
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::with_repository();
    let tree = scratch.path("odd");
    fs::create_dir(&tree).unwrap();
    let sparse = fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(50_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &common::pseudo_random(100_000, 9), 30_000_000)
        .unwrap();
    drop(sparse);
    scratch.ok(["create", "files", &scratch.text("odd")]);
    scratch.ok(["restore", "latest", "--to", &scratch.text("out")]);
    let copy = scratch.path("out").join(scratch.name("odd")).join("sparse");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(tree.join("sparse")).unwrap());
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 5_000_000, "the holes were filled");
}

/// A real system directory; with BACKUP_LONG all of /usr: more than 100,000 files and 2 GB.
#[test]
fn a_real_tree_survives() {
    let long = std::env::var_os("BACKUP_LONG").is_some();
    let tree = Path::new(if long { "/usr" } else { "/usr/include" });
    let tree = if tree.exists() { tree } else { Path::new("/etc") };
    let scratch = Scratch::with_repository();
    let report = scratch.json(0, ["create", "files", "--one-file-system", &tree.display().to_string()]);
    println!("{}: {} entries, {} bytes", tree.display(), report["entries"], report["bytes_read"]);
    if long {
        assert!(
            report["entries"].as_u64().unwrap() >= 100_000
                && report["bytes_read"].as_u64().unwrap() >= 2_000_000_000
        );
    }
    scratch.ok(["restore", "latest", "--to", &scratch.text("out"), "--devices"]);
    let copy = scratch.path("out").join(tree.strip_prefix("/").unwrap());
    assert_eq!(differences(tree, &copy), "");
}
