//! A case, and running it in a process of its own.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{ErrorKind, Sink};
use backup_sources::DirectoryTargetBuilder;

use crate::forge::{FORGED, Forge};
use crate::scene::{Scene, is_root};

/// Address space that a case may take beyond what its process had when it began.
pub const CAP_MIB: u64 = 256;
/// Address space of the program altogether. Its code, its libraries and the stacks of its threads take about 80 MiB.
const PROGRAM_CAP_MIB: u64 = 80 + CAP_MIB;
/// The longest that a case may take, and the longest run of the program.
const SECONDS_MAX: u64 = 20;

/// What a restore of the forged snapshot must say.
#[derive(Debug, Clone, Copy)]
pub enum Verdict {
    /// Nothing is restored: an error of this kind with this text.
    Refused(ErrorKind, &'static str),
    /// Exactly these entries are named as failed, each with a reason that holds the text; the others are restored.
    Named(&'static [(&'static str, &'static str)]),
    /// Only these entries may be named, each with this text: which of them depends on who is faster.
    Within(&'static [(&'static str, &'static str)]),
    /// Everything is restored, and stays in its place.
    Restored,
}

/// What a verification must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    Clean,
    Damaged,
    /// It fails as a whole, as the restore does.
    Refused,
    /// It would take as long as reading what the snapshot claims to hold.
    TooLong,
}

/// Changes a target until it is told to stop.
pub type During = fn(&Scene, &dyn Fn() -> bool);
/// Puts a liar before a store.
pub type Lying = fn(Arc<dyn Sink>) -> Arc<dyn Sink>;

/// One mechanism.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub mechanism: &'static str,
    /// Forges the repository.
    pub forge: fn(&mut Forge),
    pub verdict: Verdict,
    pub verify: Verify,
    /// Puts into the target what stands there before the restore; also given what is outside.
    pub before: fn(&Path, &Path),
    /// Looks at the target afterwards.
    pub after: fn(&Path),
    /// Changes the target while the restore runs, until told to stop.
    pub during: Option<During>,
    /// How the library restores.
    pub options: fn(DirectoryTargetBuilder) -> DirectoryTargetBuilder,
    /// The program's words for the same options.
    pub arguments: &'static [&'static str],
    /// The store, which may lie.
    pub store: Option<Lying>,
    /// Restored by somebody without privileges.
    pub as_user: bool,
    /// Names in the target are those of files outside: their number changes when one is removed.
    pub linked: bool,
    /// Only root can play it.
    pub needs_root: bool,
    /// The honest snapshot beside it can be read.
    pub honest: bool,
    /// The built program is run, too.
    pub program: bool,
    /// Opened with this passphrase instead of the key file.
    pub passphrase: Option<&'static str>,
    /// Commands whose words must not drive a terminal.
    pub shown: &'static [&'static [&'static str]],
}

/// A case that forges a repository and whose target is empty.
pub fn case(name: &'static str, mechanism: &'static str, forge: fn(&mut Forge), verdict: Verdict) -> Case {
    Case {
        name,
        mechanism,
        forge,
        verdict,
        verify: Verify::Clean,
        before: |_, _| {},
        after: |_| {},
        during: None,
        options: |target| target,
        arguments: &[],
        store: None,
        as_user: false,
        linked: false,
        needs_root: false,
        honest: true,
        program: true,
        passphrase: None,
        shown: &[],
    }
}

impl Case {
    pub fn damaged(mut self) -> Self {
        self.verify = Verify::Damaged;
        self
    }

    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    pub fn before(mut self, before: fn(&Path, &Path)) -> Self {
        self.before = before;
        self
    }

    pub fn after(mut self, after: fn(&Path)) -> Self {
        self.after = after;
        self
    }

    pub fn during(mut self, during: During) -> Self {
        self.during = Some(during);
        self
    }

    pub fn options(
        mut self,
        options: fn(DirectoryTargetBuilder) -> DirectoryTargetBuilder,
        arguments: &'static [&'static str],
    ) -> Self {
        (self.options, self.arguments) = (options, arguments);
        self
    }

    pub fn store(mut self, store: Lying) -> Self {
        (self.store, self.program) = (Some(store), false);
        self
    }

    pub fn by_user(mut self) -> Self {
        (self.as_user, self.program) = (true, false);
        self
    }

    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    pub fn needs_root(mut self) -> Self {
        self.needs_root = true;
        self
    }

    pub fn honest_is_lost(mut self) -> Self {
        self.honest = false;
        self
    }

    pub fn library_only(mut self) -> Self {
        self.program = false;
        self
    }

    pub fn passphrase(mut self, passphrase: &'static str) -> Self {
        (self.passphrase, self.program) = (Some(passphrase), false);
        self
    }

    pub fn shows(mut self, shown: &'static [&'static [&'static str]]) -> Self {
        self.shown = shown;
        self
    }
}

/// The case that this process is to run.
pub fn named_by_environment() -> Option<(String, String)> {
    Some((std::env::var("HOSTILE_GROUP").ok()?, std::env::var("HOSTILE_CASE").ok()?))
}

/// Runs all cases of a group and says which went wrong.
pub fn run_group(group: &str, cases: Vec<Case>) {
    if named_by_environment().is_some() {
        return;
    }
    let began = Instant::now();
    let only = std::env::var("HOSTILE_ONLY").ok();
    let mut wrong = Vec::new();
    let mut ran = 0;
    for case in cases {
        if only.as_ref().is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        if case.needs_root && !is_root() {
            println!("{group}: `{}` needs root", case.name);
            continue;
        }
        ran += 1;
        let alone = Instant::now();
        if let Err(why) = run(group, &case) {
            wrong.push(format!("{group}: {}: {}\n{why}", case.name, case.mechanism));
        }
        if alone.elapsed() > Duration::from_secs(2) {
            println!("{group}: `{}` took {:?}", case.name, alone.elapsed());
        }
    }
    println!("{group}: {ran} cases in {:?}", began.elapsed());
    assert!(wrong.is_empty(), "{} of {ran} went wrong:\n\n{}", wrong.len(), wrong.join("\n\n"));
}

fn run(group: &str, case: &Case) -> Result<(), String> {
    let top = tempfile::tempdir().unwrap().keep();
    let scene = Scene::build(&top);
    let result = std::panic::catch_unwind(|| play(group, case, &scene))
        .unwrap_or_else(|_| Err("the look at the target failed".into()));
    scene.remove();
    result
}

fn play(group: &str, case: &Case, scene: &Scene) -> Result<(), String> {
    let mut forge = Forge::new(&scene.outside());
    (case.forge)(&mut forge);
    forge.write_to(&scene.repository());
    drop(forge);
    for target in [scene.target(), scene.program_target()] {
        (case.before)(&target, &scene.outside());
    }
    let linked = case.linked || case.during.is_some();
    let before = scene.digest(linked);
    let mut own = Command::new(std::env::current_exe().unwrap());
    own.args(["--exact", "a_case_in_a_process_of_its_own", "--nocapture", "--test-threads=1"]);
    own.env("RUST_BACKTRACE", "0")
        .env("HOSTILE_GROUP", group)
        .env("HOSTILE_CASE", case.name)
        .env("HOSTILE_TOP", &scene.top);
    let (code, text) = limited(own)?;
    if code != Some(0) {
        return Err(format!("its process ended with {code:?}: {text}"));
    }
    compare(&before, &scene.digest(linked), "the library")?;
    (case.after)(&scene.target());
    if case.program {
        run_program(case, scene)?;
        compare(&before, &scene.digest(linked), "the program")?;
        (case.after)(&scene.program_target());
    }
    Ok(())
}

fn compare(before: &str, after: &str, who: &str) -> Result<(), String> {
    if before == after {
        return Ok(());
    }
    let gone = before.lines().filter(|line| !after.lines().any(|now| now == *line));
    let new = after.lines().filter(|line| !before.lines().any(|was| was == *line));
    let lines: Vec<_> =
        gone.map(|line| format!("- {line}")).chain(new.map(|line| format!("+ {line}"))).collect();
    Err(format!("{who} changed what stands around its target:\n{}", lines.join("\n")))
}

/// Every command that reads, on the forged snapshot, under the cap.
fn run_program(case: &Case, scene: &Scene) -> Result<(), String> {
    let id = FORGED.to_string();
    let target = scene.program_target().display().to_string();
    let mut restore = vec!["restore", &id, "--to", &target];
    restore.extend(case.arguments);
    let expected = match case.verdict {
        Verdict::Refused(..) => &[1][..],
        Verdict::Named(_) => &[3],
        Verdict::Within(_) => &[0, 3],
        Verdict::Restored => &[0],
    };
    ran(scene, &restore, expected)?;
    match case.verify {
        Verify::Clean => ran(scene, &["verify", "--level", "content"], &[0])?,
        Verify::Damaged => ran(scene, &["verify", "--level", "content"], &[3])?,
        Verify::Refused => ran(scene, &["verify", "--level", "content"], &[1])?,
        Verify::TooLong => {}
    }
    ran(scene, &["ls", &id], &[0, 1, 3, 4])?;
    for arguments in case.shown {
        shows_no_control(scene, arguments)?;
    }
    if case.verify != Verify::TooLong {
        ran(scene, &["cat", &id, "file"], &[0, 1, 3, 4])?;
    }
    Ok(())
}

fn ran(scene: &Scene, arguments: &[&str], expected: &[i32]) -> Result<(), String> {
    let (code, text) = limited(program(scene, arguments))?;
    let fits = code.is_some_and(|code| expected.contains(&code)) && !text.contains("panicked");
    if fits { Ok(()) } else { Err(format!("`{}` ended with {code:?}: {text}", arguments.join(" "))) }
}

/// What the program says to a person has no control characters but ends of lines, and none that turn the direction; the
/// forged line stands nowhere by itself. As JSON it is one line.
fn shows_no_control(scene: &Scene, arguments: &[&str]) -> Result<(), String> {
    let said = program(scene, arguments).stdin(Stdio::null()).output().unwrap();
    let said = [said.stdout, said.stderr].concat();
    let text = String::from_utf8_lossy(&said);
    let drives = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    if text.chars().any(drives)
        || text.lines().any(|line| line.starts_with("root-owned"))
        || said.contains(&0x9b)
    {
        return Err(format!("`{}` drives a terminal: {text:?}", arguments.join(" ")));
    }
    let mut json = vec!["--json"];
    json.extend(arguments);
    let said = program(scene, &json).stdin(Stdio::null()).output().unwrap().stdout;
    let lines = said.iter().filter(|byte| **byte == b'\n').count();
    if serde_json::from_slice::<serde_json::Value>(&said).is_err() || lines != 1 || said.contains(&0x1b) {
        return Err(format!("`{}` is no JSON: {}", json.join(" "), String::from_utf8_lossy(&said)));
    }
    Ok(())
}

/// The program under its cap.
fn program(scene: &Scene, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let kib = (PROGRAM_CAP_MIB * 1024).to_string();
    let shell = "ulimit -v \"$0\" && exec \"$@\"";
    command.args(["-c", shell, &kib, env!("CARGO_BIN_EXE_backup"), "--progress", "none"]);
    command.args(arguments).env_clear().env("MALLOC_ARENA_MAX", "1").env("TMPDIR", std::env::temp_dir());
    command.env("BACKUP_REPO", scene.repository()).env("BACKUP_KEY_FILE", scene.top.join("key"));
    command
}

/// Runs a command for a while; its exit code, and the end of what it said on standard error.
fn limited(mut command: Command) -> Result<(Option<i32>, String), String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).env("MALLOC_ARENA_MAX", "1");
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = pipe.read_to_end(&mut text);
        let start = text.len().saturating_sub(3000);
        String::from_utf8_lossy(&text[start..]).into_owned()
    });
    let until = Instant::now() + Duration::from_secs(SECONDS_MAX);
    match wait(&mut child, until) {
        Some(status) => {
            let text = said.join().unwrap();
            Ok((status.code(), if status.code().is_none() { format!("{status}: {text}") } else { text }))
        }
        None => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("{command:?} had not ended after {SECONDS_MAX} seconds"))
        }
    }
}

fn wait(child: &mut Child, until: Instant) -> Option<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// Under the cap of a case a little fits, and more than the cap does not.
pub fn assert_cap_holds() {
    if named_by_environment().is_some() {
        return;
    }
    if let Ok(mib) = std::env::var("HOSTILE_ALLOCATES") {
        crate::judge::cap_memory();
        let mut taken: Vec<u8> = Vec::with_capacity(mib.parse::<usize>().unwrap() << 20);
        taken.resize(taken.capacity(), 1);
        std::hint::black_box(&taken);
        return;
    }
    for (mib, survives) in [(200, true), (300, false)] {
        let mut own = Command::new(std::env::current_exe().unwrap());
        own.args(["--exact", "a_process_that_needs_more_memory_than_it_may_is_ended", "--nocapture"]);
        own.env("HOSTILE_ALLOCATES", mib.to_string());
        let (code, text) = limited(own).unwrap();
        assert_eq!(code == Some(0), survives, "{mib} MiB: {text}");
    }
}
