//! A tree of every attribute, and what `rsync` says of two trees.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

pub fn sh(script: &str, directory: &Path) {
    let done = Command::new("sh").args(["-euc", script]).current_dir(directory).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What `rsync` would still have to do to make `copy` equal to `original`: nothing, one hopes.
pub fn differences(original: &Path, copy: &Path) -> String {
    let slash = |path: &Path| format!("{}/", path.display());
    let rsync = Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--delete", "--itemize-changes"])
        .args([slash(original), slash(copy)])
        .output()
        .unwrap_or_else(|e| panic!("rsync must be installed (apt-get install rsync): {e}"));
    assert!(rsync.status.success(), "{}", String::from_utf8_lossy(&rsync.stderr));
    String::from_utf8_lossy(&rsync.stdout).into_owned()
}

/// Makes a tree of every attribute that a file system holds, below a directory that is there.
pub fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("plain/deep/deeper")).unwrap();
    fs::create_dir(root.join("empty directory")).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("plain/text"), "some text\n".repeat(1000)).unwrap();
    fs::write(root.join("plain/deep/deeper/big"), super::pseudo_random(5_000_000, 3)).unwrap();
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

/// Adds to a tree what is odder still: whatever is known to have gone wrong in some backup program.
pub fn add_oddities(root: &Path) {
    let at = |name: &str| root.join(name);
    sh(
        "ln pipe 'pipe again'; ln -P link 'link again'; ln socket 'socket again'; ln empty 'empty again'",
        root,
    );
    symlink("t".repeat(4095), at("the longest link")).unwrap();
    symlink(std::ffi::OsStr::from_bytes(b"\xff not text"), at("link to no text")).unwrap();
    fs::create_dir_all(at(&"d".repeat(255)).join("e".repeat(255)).join("f".repeat(255))).unwrap();
    for name in [" ", "-rf", "a\\..\\b", "\x01\x7f", "*", "%s", "..a", "a.", "\u{202e}txt.exe"] {
        fs::write(at(name), name).unwrap();
    }
    fs::create_dir(at("many")).unwrap();
    (0..2_000).for_each(|number| fs::write(at("many").join(number.to_string()), "").unwrap());
    let holes = fs::File::create(at("hole at the end")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&holes, &[7; 4096], 0).unwrap();
    holes.set_len(9_000_000).unwrap();
    fs::File::create(at("only a hole")).unwrap().set_len(3_000_000).unwrap();
    let islands = fs::File::create(at("islands")).unwrap();
    (0..20).for_each(|number| {
        std::os::unix::fs::FileExt::write_all_at(&islands, &[1; 4096], number * 1_048_576).unwrap();
    });
    xattr::set(at("plain/deep"), "user.long", &[b'v'; 3000]).unwrap();
    sh("setfacl -m g:54321:rwx 'many'; setfacl -d -m g:54321:r many", root);
    sh("chattr +d plain/text 2>/dev/null || true; chattr +A many 2>/dev/null || true", root);
    if is_root() {
        sh("ln char 'char again'; ln block 'block again'; ln setuid 'setuid again'", root);
        sh(
            "setfattr -n trusted.note -v secret plain/deep/deeper; setfattr -h -n trusted.link -v x dangling",
            root,
        );
        // cap_net_bind_service, permitted and effective, as a version 2 capability (capabilities(7)).
        sh(
            "cp /bin/true capable; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 capable",
            root,
        );
        sh("chown daemon:daemon many/7; chown 4000000000:4000000001 many/8", root);
        sh(
            "mkdir locked; echo x > locked/file; ln locked/file 'locked again'; echo x > log; \
             chattr +i locked/file locked 2>/dev/null || true; chattr +a log 2>/dev/null || true",
            root,
        );
    }
    sh(
        "touch -d '2446-05-10 00:00:00.25 UTC' many/1; touch -d '1901-12-14 00:00:00.999999999 UTC' many/2",
        root,
    );
    sh("touch -d '2038-01-19 03:14:08 UTC' many/3; touch -d '1970-01-01 00:00:00 UTC' many .", root);
}
