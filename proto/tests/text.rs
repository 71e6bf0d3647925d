//! R1: the chain carries codes, ids, times and commitments, never text. Read from the schema itself, so that a
//! field that could hold text cannot come in unseen.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};

/// The message types of a schema: of each its fields, as type and name.
fn messages(schema: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let mut messages = BTreeMap::new();
    let mut open: Option<String> = None;
    for line in schema.lines() {
        let code = line.split("//").next().unwrap().trim();
        if let Some(name) = code.strip_prefix("message ").and_then(|c| c.strip_suffix(" {")) {
            open = Some(name.to_owned());
            messages.insert(name.to_owned(), Vec::new());
        } else if code.starts_with("enum ") {
            open = None;
        } else if let (Some(name), true) = (&open, code.ends_with(';')) {
            let mut words = code.split_whitespace().filter(|w| !matches!(*w, "repeated" | "optional"));
            let field = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
            messages.get_mut(name).unwrap().push(field);
        }
    }
    messages
}

fn schema() -> BTreeMap<String, Vec<(String, String)>> {
    let mut all = messages(include_str!("../schema/assent/v1/transaction.proto"));
    all.extend(messages(include_str!("../schema/assent/v1/state.proto")));
    all.extend(messages(include_str!("../schema/assent/v1/block.proto")));
    all.extend(messages(include_str!("../schema/assent/v1/question.proto")));
    all
}

/// Every field that a message can hold, however deep.
fn reachable(from: &str) -> BTreeSet<(String, String, String)> {
    let schema = schema();
    let (mut open, mut seen, mut fields) = (vec![from.to_owned()], BTreeSet::new(), BTreeSet::new());
    while let Some(message) = open.pop() {
        if !seen.insert(message.clone()) {
            continue;
        }
        for (kind, name) in schema.get(&message).into_iter().flatten() {
            fields.insert((message.clone(), kind.clone(), name.clone()));
            open.push(kind.trim_start_matches("assent.v1.").to_owned());
        }
    }
    fields
}

#[test]
fn r1_no_field_of_a_body_or_of_an_object_can_hold_text() {
    let objects = [
        "Institution",
        "Account",
        "Item",
        "Batch",
        "Settlement",
        "GrantState",
        "Permit",
        "Artifact",
        "Review",
        "Policy",
        "Parameters",
        "Validators",
        "Nodes",
        "Turns",
        "Proposal",
        "Misconduct",
        "Delegation",
        "Order",
        "Emergency",
    ];
    let schema = schema();
    for root in objects.into_iter().chain(["Body", "Event", "Receipt", "Question"]) {
        assert!(schema.contains_key(root), "{root}");
        let fields = reachable(root);
        assert!(!fields.is_empty(), "{root}");
        for (message, kind, name) in fields {
            // A map or an any would let in what the schema does not name.
            let plain = schema.contains_key(&kind)
                || matches!(kind.as_str(), "bytes" | "uint32" | "uint64" | "bool")
                || kind.chars().next().is_some_and(char::is_uppercase);
            assert!(plain, "{root}: {message}.{name} is a {kind}");
        }
    }
}

/// Which of our types read bytes, and at which length each.
const FIXED: [&str; 20] = [
    "Hash",
    "PublicKey",
    "Signature",
    "ChainTag",
    "InstitutionId",
    "AccountId",
    "ItemId",
    "BatchId",
    "CaseId",
    "GrantId",
    "PermitId",
    "ArtifactId",
    "ProposalId",
    "DelegationId",
    "OrderId",
    "BodyId",
    "Commitment",
    "BlockId",
    "Address",
    "MisconductId",
];

/// The fields of the checked messages, by message and name.
fn checked(source: &str) -> BTreeMap<(String, String), String> {
    let (mut fields, mut open) = (BTreeMap::new(), None);
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("    ").and_then(|l| l.strip_suffix(" {")) {
            open = name.chars().all(char::is_alphanumeric).then(|| name.to_owned());
        } else if let (Some(message), Some(field)) = (&open, line.strip_prefix("        "))
            && let Some((name, kind)) = field.trim_end_matches(',').split_once(": ")
            && name.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        {
            fields.insert((message.clone(), name.to_owned()), kind.to_owned());
        }
    }
    fields
}

#[test]
fn r1_bytes_of_a_body_are_ids_keys_hashes_and_signatures_of_one_length_each() {
    let mut types = checked(include_str!("../src/transaction.rs"));
    types.extend(checked(include_str!("../src/state.rs")));
    types.extend(checked(include_str!("../src/validators.rs")));
    let bytes: Vec<_> = reachable("Body").into_iter().filter(|(_, kind, _)| kind == "bytes").collect();
    assert!(bytes.len() > 60, "the schema was read: {}", bytes.len());
    for (message, _, name) in bytes {
        // An author is one of two ids; its reading is written out by hand.
        if message == "Author" {
            assert!(["institution", "account"].contains(&name.as_str()));
            continue;
        }
        let kind = types.get(&(message.clone(), name.clone()));
        let kind = kind.unwrap_or_else(|| panic!("{message}.{name} has no checked type"));
        let inner = kind.trim_start_matches("Option<").trim_start_matches("List<");
        let inner = inner.split([',', '>']).next().unwrap();
        assert!(FIXED.contains(&inner), "{message}.{name} is a {kind}");
    }
}
