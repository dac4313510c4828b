//! One pattern of `gitignore(5)`, as a regular expression of bytes.
//!
//! What matches is what git's own `wildmatch` matches: `*`, `?` and `[...]` never match a slash, `**` between slashes
//! matches any number of directories, a backslash takes away the meaning of what follows.

use std::fmt::Write;

/// A pattern taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// It takes in again what another left out.
    pub(super) includes: bool,
    /// It matches directories only.
    pub(super) directories_only: bool,
    /// It is matched against a whole path, since it has a slash; otherwise against the last component.
    pub(super) whole_path: bool,
    /// What it matches.
    pub(super) regex: String,
}

impl Pattern {
    /// Reads a pattern; what is wrong with it otherwise.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        let (includes, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (directories_only, rest) = match rest.strip_suffix('/') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        if rest.is_empty() {
            return Err("is empty");
        }
        let whole_path = rest.contains('/');
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        Ok(Self { includes, directories_only, whole_path, regex: regex(rest.as_bytes())? })
    }
}

/// The pattern in a line of a file of patterns; none in an empty line and in a comment.
pub(super) fn of_line(line: &str) -> Option<&str> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut kept = line.trim_end_matches(' ');
    // Of the spaces at the end, one behind a backslash belongs to the pattern.
    let escapes = kept.bytes().rev().take_while(|byte| *byte == b'\\').count();
    if escapes % 2 == 1 && kept.len() < line.len() {
        kept = line.get(..kept.len().saturating_add(1)).unwrap_or(line);
    }
    (!kept.is_empty() && !kept.starts_with('#')).then_some(kept)
}

fn regex(pattern: &[u8]) -> Result<String, &'static str> {
    let mut out = String::from("(?s-u)^");
    let mut rest = pattern;
    let mut at_start = true;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let starts_component = std::mem::replace(&mut at_start, *byte == b'/');
        match byte {
            b'*' => {
                let stars = tail.iter().take_while(|byte| **byte == b'*').count();
                rest = tail.get(stars..).unwrap_or_default();
                match (stars > 0 && starts_component, rest) {
                    (true, [b'/', below @ ..]) => {
                        rest = below;
                        at_start = true;
                        out.push_str("(?:.*/)?");
                    }
                    (true, []) => out.push_str(".*"),
                    _ => out.push_str("[^/]*"),
                }
            }
            b'?' => out.push_str("[^/]"),
            b'[' => {
                rest = class(tail, &mut out).ok_or("has a `[` that is not closed, or a class that is none")?
            }
            b'\\' => match tail {
                [] => return Err("ends in a backslash"),
                [literal, tail @ ..] => {
                    rest = tail;
                    at_start = *literal == b'/';
                    push_byte(&mut out, *literal);
                }
            },
            literal => push_byte(&mut out, *literal),
        }
    }
    out.push('$');
    Ok(out)
}

/// Reads a class behind its bracket; what follows it.
fn class<'a>(pattern: &'a [u8], out: &mut String) -> Option<&'a [u8]> {
    let (negated, mut rest) = match pattern {
        [b'!' | b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut set = [false; 256];
    let mut before: Option<u8> = None;
    let mut first = true;
    loop {
        let [byte, tail @ ..] = rest else { return None };
        rest = tail;
        match byte {
            b']' if !first => break,
            b'-' if before.is_some() && !matches!(tail, [] | [b']', ..]) => {
                let last = match tail {
                    [b'\\', last, tail @ ..] | [last, tail @ ..] => {
                        rest = tail;
                        *last
                    }
                    [] => return None,
                };
                let from = before.take()?;
                (from..=last).for_each(|byte| add(&mut set, byte));
            }
            b'[' if tail.first() == Some(&b':') => {
                let end = tail.iter().skip(1).position(|byte| *byte == b']')?.saturating_add(1);
                let (inner, behind) = tail.split_at_checked(end)?;
                match inner.strip_suffix(b":").and_then(|inner| inner.strip_prefix(b":")) {
                    Some(name) => {
                        let holds = named(name)?;
                        (0..=u8::MAX).filter(holds).for_each(|byte| add(&mut set, byte));
                        rest = behind.get(1..)?;
                        before = None;
                    }
                    // No such class after all: a bracket among others.
                    None => {
                        add(&mut set, b'[');
                        before = Some(b'[');
                    }
                }
            }
            literal => {
                let literal = match (literal, tail) {
                    (b'\\', [literal, tail @ ..]) => {
                        rest = tail;
                        literal
                    }
                    (b'\\', []) => return None,
                    (literal, _) => literal,
                };
                add(&mut set, *literal);
                before = Some(*literal);
            }
        }
        first = false;
    }
    let holds =
        |byte: u8| byte != b'/' && set.get(usize::from(byte)).is_some_and(|in_set| *in_set != negated);
    out.push('[');
    let members: Vec<u8> = (0..=u8::MAX).filter(|byte| holds(*byte)).collect();
    if members.is_empty() {
        out.push_str("^\\x00-\\xff");
    }
    members.into_iter().for_each(|byte| push_byte(out, byte));
    out.push(']');
    Some(rest)
}

fn add(set: &mut [bool; 256], byte: u8) {
    if let Some(place) = set.get_mut(usize::from(byte)) {
        *place = true;
    }
}

fn named(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| byte.is_ascii_graphic() || *byte == b' ',
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

fn push_byte(out: &mut String, byte: u8) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        let pattern = Pattern::new(pattern).unwrap();
        regex::bytes::Regex::new(&pattern.regex).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn wildcards_match_as_in_git() {
        for (pattern, yes, no) in [
            ("*.o", &["a.o", ".o"][..], &["a.oo", "d/a.o"][..]),
            ("a?c", &["abc", "a-c"], &["ac", "a/c"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb", "x/a/b"]),
            ("**/b/c", &["b/c", "x/b/c", "x/y/b/c"], &["xb/c"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "b/a"]),
            ("a**b", &["ab", "axxb"], &["a/b"]),
            ("/a*/b", &["ax/b"], &["a/x/b"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "-x"]),
            ("[!a-c]x", &["dx"], &["ax", "/x"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[a\\]b]", &["a", "]", "b"], &["\\"]),
            ("[[:digit:]_]", &["7", "_"], &["a", ":"]),
            ("[[:x]", &["[", ":", "x"], &["a"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("{a,b}", &["{a,b}"], &["a"]),
            ("\\*\\!", &["*!"], &["x!"]),
            ("(a|b)+$.", &["(a|b)+$."], &["a"]),
        ] {
            for text in yes {
                assert!(matches(pattern, text), "{pattern} should match {text}");
            }
            for text in no {
                assert!(!matches(pattern, text), "{pattern} should not match {text}");
            }
        }
    }

    #[test]
    fn a_pattern_says_what_it_is_matched_against() {
        let kind = |text: &str| {
            let pattern = Pattern::new(text).unwrap();
            (pattern.includes, pattern.directories_only, pattern.whole_path)
        };
        assert_eq!(kind("a"), (false, false, false));
        assert_eq!(kind("!a/"), (true, true, false));
        assert_eq!(kind("/a"), (false, false, true));
        assert_eq!(kind("a/b/"), (false, true, true));
        assert_eq!(kind("\\!a"), (false, false, false));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "!", "/", "!/", "[", "[a", "[!", "a\\", "[[:no:]]", "[a\\"] {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lines_are_read_as_git_reads_them() {
        for (line, pattern) in [
            ("a", Some("a")),
            ("a  ", Some("a")),
            ("a\\ ", Some("a\\ ")),
            ("a\\  ", Some("a\\ ")),
            ("a\\\\ ", Some("a\\\\")),
            (" a", Some(" a")),
            ("a\r", Some("a")),
            ("", None),
            ("   ", None),
            ("# x", None),
            ("\\#x", Some("\\#x")),
        ] {
            assert_eq!(of_line(line), pattern, "{line:?}");
        }
    }
}
