//! What a body can say has the protocol version by which it came: every field and every number that can stand in a
//! body is listed in `since.txt` with it. A new one is in no list, and fails here until its version is named, and
//! until `Body::since` asks for that version where it is used.

#![allow(clippy::unwrap_used)] // the helpers of a test fail as the test does

use std::collections::{BTreeMap, BTreeSet};

use assent_proto::block::{PROTOCOL_NEWEST, PROTOCOL_OLDEST};
use assent_proto::transaction::ActionKind;

/// Of each message its fields with their types, of each enum its values; by name.
#[derive(Default)]
struct Schema {
    messages: BTreeMap<String, Vec<(String, String)>>,
    enums: BTreeMap<String, Vec<String>>,
}

impl Schema {
    fn read() -> Schema {
        let mut schema = Schema::default();
        for text in [
            include_str!("../schema/assent/v1/transaction.proto"),
            include_str!("../schema/assent/v1/state.proto"),
            include_str!("../schema/assent/v1/block.proto"),
        ] {
            schema.add(text);
        }
        schema
    }

    fn add(&mut self, text: &str) {
        let mut open = String::new();
        for line in text.lines().map(|l| l.split("//").next().unwrap().trim()) {
            let words: Vec<_> =
                line.split_whitespace().filter(|w| *w != "optional" && *w != "repeated").collect();
            match words[..] {
                ["message", name, ..] => {
                    open = name.to_owned();
                    self.messages.entry(open.clone()).or_default();
                }
                ["enum", name, ..] => {
                    open = name.to_owned();
                    self.enums.entry(open.clone()).or_default();
                }
                [kind, name, "=", number, ..] if self.messages.contains_key(&open) => {
                    let field = format!("{name} {}", number.trim_end_matches(';'));
                    self.messages.get_mut(&open).unwrap().push((field, kind.to_owned()));
                }
                [name, "=", number, ..] if self.enums.contains_key(&open) && number != "0;" => {
                    let value = format!("{name} {}", number.trim_end_matches(';'));
                    self.enums.get_mut(&open).unwrap().push(value);
                }
                _ => {}
            }
        }
    }

    /// Every field and number that can stand in a message or in what it holds.
    fn reachable(&self, root: &str) -> BTreeSet<String> {
        let (mut all, mut open, mut seen) = (BTreeSet::new(), vec![root.to_owned()], BTreeSet::new());
        while let Some(name) = open.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            for (field, kind) in self.messages.get(&name).into_iter().flatten() {
                all.insert(format!("{name}.{field}"));
                open.push(kind.clone());
            }
            all.extend(self.enums.get(&name).into_iter().flatten().map(|value| format!("{name}.{value}")));
        }
        all
    }
}

#[test]
fn everything_that_a_body_can_say_has_the_version_by_which_it_came() {
    let listed: BTreeMap<_, u32> = include_str!("since.txt")
        .lines()
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(what, since)| (what.to_owned(), since.parse().unwrap()))
        .collect();
    let reachable = Schema::read().reachable("Body");
    assert!(reachable.len() > 200 && reachable.contains("ChangeProtocol.version 1"), "{reachable:?}");
    let new: Vec<_> = reachable.iter().filter(|what| !listed.contains_key(*what)).collect();
    assert!(new.is_empty(), "in no list, so of no version: {new:?}");
    let gone: Vec<_> = listed.keys().filter(|what| !reachable.contains(*what)).collect();
    assert!(gone.is_empty(), "what was once on a chain must be read for ever: {gone:?}");
    let known = PROTOCOL_OLDEST..=PROTOCOL_NEWEST;
    let wrong: Vec<_> = listed.iter().filter(|(_, since)| !known.contains(since)).collect();
    assert!(wrong.is_empty(), "of no version that this program knows: {wrong:?}");
}

#[test]
fn every_kind_of_action_has_a_version_that_this_program_knows() {
    for kind in ActionKind::ALL {
        assert!((PROTOCOL_OLDEST..=PROTOCOL_NEWEST).contains(&kind.since()), "{kind:?}");
    }
}
