//! Those who do something to the repository, each in a loop until the time is over.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::book::{Tree, compare, content};
use crate::world::{Blow, World, is_passing, said};

/// Chance, from a seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(world: &World, whose: u64) -> Self {
        Self((world.seed ^ whose.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }

    /// A clock that is off by up to a day, either way.
    fn clock(&mut self) -> i64 {
        self.below(2 * 86_400) as i64 - 86_400
    }

    fn choose<T>(&mut self, mut from: Vec<T>) -> Option<T> {
        let at = self.below(from.len().max(1) as u64) as usize;
        (at < from.len()).then(|| from.swap_remove(at))
    }

    /// What happens to a process that mostly takes about so many milliseconds.
    fn blow(&mut self, about: u64) -> Blow {
        match self.below(100) {
            0..20 => Blow::Kill(self.millis(about)),
            // So long that it is taken for dead.
            20 => Blow::Stop(self.millis(about), Duration::from_secs(95) + self.millis(30_000)),
            21..24 => Blow::Stop(self.millis(about), self.millis(10_000)),
            _ => Blow::None,
        }
    }
}

/// A host that backs up its tree again and again. Hosts have much in common, and what is gone from one comes again.
pub(crate) fn write(world: &World, number: u64) {
    let mut dice = Dice::new(world, number);
    let (name, host) = (format!("tree-{number}"), format!("host-{number}"));
    let directory = world.path(&name);
    fs::create_dir_all(&directory).unwrap();
    let mut tree = Tree::new();
    while world.goes_on() {
        for _ in 0..=dice.below(12) {
            let file = format!("file-{}", dice.below(30));
            if dice.one_in(5) {
                tree.remove(&file);
                fs::remove_file(directory.join(&file)).ok();
            } else {
                let seed = dice.below(60);
                tree.insert(file.clone(), seed);
                fs::write(directory.join(&file), content(seed)).unwrap();
            }
        }
        let (clock, blow) = (dice.clock(), dice.blow(1_500));
        let Some(ran) = world.run(&["create", "files", &name, "--host", &host], clock, blow) else {
            continue;
        };
        if ran.err.contains("shut out") {
            world.book.count("writers shut out");
        }
        match ran.code {
            0 => {
                let id = ran.json()["snapshot"].as_str().unwrap().to_owned();
                world.book.acknowledge(id, tree.clone());
            }
            _ if is_passing(&ran) => world.book.count("backups failed"),
            code => world.fail(format!("{host}: {code}: {}", said(&ran))),
        }
        world.pause(dice.millis(2_000));
    }
}

/// Collections that did not come to their end: each may leave the fence of its merge, and that of its repacking.
pub(crate) const CUT_OFF: &str = "collections cut off";

pub(crate) fn collect(world: &World, number: u64) {
    let mut dice = Dice::new(world, 100 + number);
    while world.goes_on() {
        let (clock, blow) = (dice.clock(), dice.blow(4_000));
        let wait = format!("{}s", 1 + dice.below(20));
        let ran = world.run(&["prune", "--wait", &wait, "--max-unused", "0%"], clock, blow);
        if ran.as_ref().is_none_or(|ran| ran.code != 0) {
            world.book.count(CUT_OFF);
        }
        if let Some(ran) = ran {
            match ran.code {
                0 => {
                    let report = ran.json();
                    if report["outcome"] == "swept" {
                        world.book.count("swept");
                    }
                    if report["packs_repacked"].as_u64().is_some_and(|packs| packs > 0) {
                        world.book.count("repacked");
                    }
                }
                // What is damaged would be named.
                _ if is_passing(&ran) => world.book.count("collections failed"),
                code => world.fail(format!("collector {number}: {code}: {}", said(&ran))),
            }
        }
        world.pause(dice.millis(3_000));
    }
}

/// Forgets some, and takes some back.
pub(crate) fn forget(world: &World) {
    let mut dice = Dice::new(world, 200);
    while world.goes_on() {
        let (clock, blow) = (dice.clock(), dice.blow(1_000));
        if dice.one_in(3) {
            let Some(id) = dice.choose(world.book.doomed()) else { continue };
            let Some(ran) = world.run(&["undelete", &id], clock, blow) else { continue };
            match ran.code {
                0 => {
                    world.book.save(&id);
                    world.book.count("undeleted");
                }
                // It is not forgotten, or has expired.
                4 => {}
                _ if is_passing(&ran)
                    || ran.out.contains("not_found")
                    || ran.out.contains("invalid_input") => {}
                code => world.fail(format!("undelete {id}: {code}: {}", said(&ran))),
            }
        } else if world.book.owed().len() > 8 {
            // By the store's clock.
            let spans = ["0s", "0s", "10m", "1h"];
            let undelete_for = spans[dice.below(4) as usize];
            let mut arguments = vec!["forget", "--undelete-for", undelete_for];
            let chosen: Vec<String> = (0..=dice.below(4))
                .filter_map(|_| dice.choose(world.book.owed()))
                .map(|owed| owed.id)
                .collect();
            chosen.iter().for_each(|id| world.book.doom(id));
            arguments.extend(chosen.iter().map(String::as_str));
            let Some(ran) = world.run(&arguments, clock, blow) else { continue };
            match ran.code {
                0 => world.book.count("forgotten"),
                // One that was forgotten by a call that was killed is not listed.
                4 => {}
                _ if is_passing(&ran) => {}
                code => world.fail(format!("forget {chosen:?}: {code}: {}", said(&ran))),
            }
        }
        world.pause(dice.millis(1_500));
    }
}

/// Restores what must be there, and compares it.
pub(crate) fn read(world: &World, number: u64) {
    let mut dice = Dice::new(world, 300 + number);
    let mut times = 0;
    while world.goes_on() {
        world.pause(dice.millis(1_000));
        let Some(owed) = dice.choose(world.book.owed()) else { continue };
        times += 1;
        let to = format!("restored-{number}-{times}");
        let ran = world.run(&["restore", &owed.id, "--to", &to], dice.clock(), Blow::None);
        // It may be on its way out by now.
        if let Some(ran) = ran.filter(|_| world.book.is_owed_still(&owed)) {
            match ran.code {
                0 => {
                    let directory =
                        fs::read_dir(world.path(&to)).unwrap().next().map(|tree| tree.unwrap().path());
                    let compared = match directory {
                        Some(directory) => compare(&directory, &owed.tree),
                        None => Err("nothing was restored".to_owned()),
                    };
                    match compared {
                        Ok(()) => world.book.count("restored"),
                        Err(why) if world.book.is_owed_still(&owed) => {
                            world.fail(format!("{}: {why}", owed.id))
                        }
                        Err(_) => {}
                    }
                }
                _ if is_passing(&ran) || !world.book.is_owed_still(&owed) => {}
                code => world.fail(format!("restore {}: {code}: {}", owed.id, said(&ran))),
            }
        }
        fs::remove_dir_all(world.path(&to)).ok();
    }
}

/// Looks whether all is there.
pub(crate) fn verify(world: &World) {
    let mut dice = Dice::new(world, 400);
    while world.goes_on() {
        let level = if dice.one_in(3) { "content" } else { "structure" };
        if let Some(ran) = world.run(&["verify", "--level", level], dice.clock(), Blow::None) {
            match ran.code {
                0 => world.book.count("verified"),
                _ if is_passing(&ran) => {}
                code => {
                    let report: Value = ran.json();
                    world.fail(format!("verify --level {level}: {code}: {report:#}\n{}", ran.err));
                }
            }
        }
        world.pause(dice.millis(5_000));
    }
}
