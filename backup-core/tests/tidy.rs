//! The house rules that no compiler checks: layers, headers, sizes, what stands where.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;

/// What the top level consists of, beside dotfiles and what builds leave behind.
const TOP_LEVEL: [&str; 14] = [
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "backup-core",
    "backup-crypto",
    "backup-retention",
    "backup-sinks",
    "backup-sources",
    "benches",
    "examples",
    "fuzz",
    "target",
];

const LIBRARIES: [&str; 5] =
    ["backup-core", "backup-sources", "backup-sinks", "backup-crypto", "backup-retention"];

#[test]
fn the_top_level_holds_what_the_design_names_and_nothing_else() {
    let names: BTreeSet<_> = names_in(&root()).into_iter().filter(|name| !name.starts_with('.')).collect();
    let allowed: BTreeSet<_> = TOP_LEVEL.map(String::from).into();
    assert_eq!(names.difference(&allowed).collect::<Vec<_>>(), Vec::<&String>::new(), "unexpected");
    let optional = ["target", "Cargo.lock"];
    let missing: Vec<_> =
        allowed.difference(&names).filter(|name| !optional.contains(&name.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new(), "missing");
}

#[test]
fn contracts_do_not_know_the_engine() {
    let core = root().join("backup-core/src");
    let library = read(&core.join("lib.rs"));
    let engine_names = reexported_from(&library, &["repository", "format"]);
    let mut wrong = String::new();
    for file in rust_files(&core) {
        let place = file.strip_prefix(&core).unwrap().to_str().unwrap().to_owned();
        let layer = place.split(['/', '.']).next().unwrap();
        let forbidden: &[&str] = match layer {
            "lib" | "pipeline" | "repository" | "testing" => continue,
            "format" => &["repository"],
            _ => &["repository", "format"],
        };
        for (number, line) in code_lines(&read(&file)) {
            let imports = forbidden.iter().any(|module| names_module(&line, module));
            let renamed =
                layer != "format" && engine_names.iter().any(|name| line.contains(&format!("crate::{name}")));
            if imports || renamed {
                writeln!(wrong, "{place}:{number}: {line}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "these lines reach into the engine:\n{wrong}");
}

#[test]
fn the_middle_has_no_files_sockets_clocks_or_randomness() {
    let core = root().join("backup-core/src");
    let ambient = [
        "std::fs",
        "std::net",
        "std::process",
        "tokio",
        "SystemTime",
        "Instant",
        "getrandom",
        "SystemRandom",
    ];
    let mut wrong = String::new();
    for file in rust_files(&core) {
        let place = file.strip_prefix(&core).unwrap().to_str().unwrap().to_owned();
        let middle = ["chunker", "format", "transform", "retention"];
        if !middle.contains(&place.split(['/', '.']).next().unwrap()) {
            continue;
        }
        for (number, line) in library_lines(&file) {
            if ambient.iter().any(|name| line.contains(name)) {
                writeln!(wrong, "{place}:{number}: {line}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "these lines reach out of the middle:\n{wrong}");
}

#[test]
fn everything_depends_on_the_core_and_the_core_on_nothing_of_this_workspace() {
    for library in LIBRARIES {
        let manifest: toml::Table = read(&root().join(library).join("Cargo.toml")).parse().unwrap();
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        let ours: Vec<_> = dependencies
            .into_iter()
            .flat_map(toml::Table::keys)
            .filter(|name| name.starts_with("backup-"))
            .collect();
        match library {
            "backup-core" => assert_eq!(ours, Vec::<&String>::new(), "{library}"),
            _ => assert_eq!(ours, ["backup-core"], "{library}"),
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let workspace: toml::Table = read(&root().join("Cargo.toml")).parse().unwrap();
    for member in workspace["workspace"]["members"].as_array().unwrap() {
        let manifest: toml::Table =
            read(&root().join(member.as_str().unwrap()).join("Cargo.toml")).parse().unwrap();
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(lints.and_then(toml::Value::as_bool), Some(true), "{member:?}");
    }
}

#[test]
fn every_file_says_what_it_is_and_is_of_a_size_to_read() {
    let mut wrong = String::new();
    for file in rust_files(&root()) {
        let text = read(&file);
        if !text.starts_with("//!") {
            writeln!(wrong, "{} does not begin with `//!`", file.display()).unwrap();
        }
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            writeln!(wrong, "{} has {lines} lines; split it", file.display()).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn library_code_has_nothing_that_panics_on_purpose() {
    // Clippy denies most of these; this also sees what an `allow` or a macro hides from it.
    let panics = [
        ".unwrap()",
        ".expect(\"",
        ".expect(&",
        ".unwrap_err()",
        "panic!(",
        "todo!(",
        "unimplemented!(",
        "unreachable!(",
        "clippy::unwrap_used",
        "clippy::expect_used",
        "clippy::panic",
    ];
    let mut wrong = String::new();
    for library in LIBRARIES {
        let source = root().join(library).join("src");
        // Conformance suites report by panicking: they run in tests only.
        let files = rust_files(&source).into_iter().filter(|file| {
            let place = file.strip_prefix(&source).unwrap().to_str().unwrap();
            !place.starts_with("testing")
        });
        for file in files {
            for (number, line) in library_lines(&file) {
                if panics.iter().any(|panic| line.contains(panic)) {
                    writeln!(wrong, "{}:{number}: {}", file.display(), line.trim()).unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn nothing_names_a_place_on_somebodys_machine() {
    // Written in two pieces, or this file would be found.
    let places =
        [["/work", "/main"], ["/work", "/shared"], ["/tmp", "/wt/"], ["/tmp", "/target"], ["/root", "/"]];
    let places = places.map(|parts| parts.concat());
    let mut wrong = String::new();
    for file in files(&root(), &|_| true) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (number, line) in text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place)) {
                writeln!(wrong, "{}:{}: {line}", file.display(), number + 1).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let found = files(directory, &|name| name.ends_with(".rs"));
    assert!(!found.is_empty(), "no files in {}", directory.display());
    found
}

/// Files below `directory` that are not made by builds, fuzzing or version control.
fn files(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for name in names_in(directory) {
        let path = directory.join(&name);
        if ["target", ".git", "corpus", "artifacts", "coverage"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if wanted(&name) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Numbered lines that are not comments.
fn code_lines(text: &str) -> Vec<(usize, String)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.to_owned()));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//")).collect()
}

/// The code lines of a file outside of tests.
fn library_lines(file: &Path) -> Vec<(usize, String)> {
    if is_test_file(file) {
        return Vec::new();
    }
    let mut lines = Vec::new();
    // The indentation of a test item that is being skipped, and whether its body has begun.
    let mut skipping: Option<(String, bool)> = None;
    for (number, line) in code_lines(&read(file)) {
        let indentation: String = line.chars().take_while(|c| *c == ' ').collect();
        let text = line.trim();
        if let Some((outer, begun)) = &mut skipping {
            if *begun {
                if *outer == indentation && text.starts_with('}') {
                    skipping = None;
                }
            } else if text.ends_with('{') {
                *begun = true;
            } else if text.ends_with(';') || (text.ends_with('}') && !text.starts_with('#')) {
                skipping = None;
            }
        } else if text.starts_with("#[cfg(test)]") || text.starts_with("#[cfg(any(test") {
            skipping = Some((indentation, false));
        } else {
            lines.push((number, line));
        }
    }
    lines
}

/// Whether a file is a module that its parent declares for tests only, or lies below one.
fn is_test_file(file: &Path) -> bool {
    let mut place = file.to_owned();
    while let (Some(stem), Some(directory)) = (place.file_stem(), place.parent()) {
        let module = stem.to_str().unwrap();
        let parents = [directory.with_extension("rs"), directory.join("mod.rs"), directory.join("lib.rs")];
        let declared = parents.iter().filter(|parent| parent.is_file()).any(|parent| {
            let text = read(parent);
            let lines: Vec<_> = text.lines().map(str::trim).collect();
            lines.windows(2).any(|pair| {
                pair[0].starts_with("#[cfg(")
                    && pair[0].contains("test")
                    && pair[1].ends_with(&format!("mod {module};"))
            })
        });
        if declared {
            return true;
        }
        if directory.ends_with("src") {
            return false;
        }
        place = directory.to_owned();
    }
    false
}

/// Whether a line names `crate::module` or reaches it from the module above.
fn names_module(line: &str, module: &str) -> bool {
    let path = [format!("crate::{module}"), format!("super::{module}")];
    let group = line.trim_start().starts_with("use crate::{") && line.contains(&format!("{module}::"));
    path.iter().any(|path| line.contains(path)) || group
}

/// The names that the crate's root takes from modules.
fn reexported_from(library: &str, modules: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for module in modules {
        for statement in library.split(&format!("pub use {module}::")).skip(1) {
            let list = statement.split(';').next().unwrap();
            let parts = list.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            names.extend(parts.filter(|part| part.starts_with(char::is_uppercase)).map(String::from));
        }
    }
    names
}
