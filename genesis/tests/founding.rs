//! Founding documents, good and bad, through the crate's public door.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::sync::LazyLock;

use assent_genesis::devnet::{self, Plan};
use assent_genesis::{
    Admission, FILE_BYTES_MAX, Genesis, GenesisError, NodeEntry, Operator, Profile, Rules, ValidatorPiece,
    default_parameters, default_policy, institution_id, testing,
};
use assent_proto::keys::encryption_public;
use assent_proto::state::{Object, Parameters, Role};
use assent_proto::transaction::{Level, Purpose};
use assent_proto::{Height, ObjectRef, SecretKey, TimeMs};
use proptest::prelude::*;
use toml::{Table, Value};

/// A point of order 8.
const SMALL_ORDER: &str = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
/// The base point with a torsion component.
const MIXED_TORSION: &str = "98519eadf35b995233b51b5cd23e9cc5a28b639b5a4af0ec903cb960d81b7819";
/// The neutral point, written with y = p + 1.
const NOT_CANONICAL: &str = "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";

fn good() -> &'static str {
    static GOOD: LazyLock<String> = LazyLock::new(|| testing::four().0.to_toml());
    &GOOD
}

/// A place in a document: `validators.0.power`.
fn at<'a>(doc: &'a mut Table, path: &str) -> &'a mut Value {
    let (first, rest) = path.split_once('.').map_or((path, None), |(f, r)| (f, Some(r)));
    let start = doc.get_mut(first).expect("the place exists");
    rest.into_iter().flat_map(|r| r.split('.')).fold(start, |v, step| match v {
        Value::Array(a) => &mut a[step.parse::<usize>().unwrap()],
        v => v.get_mut(step).expect("the place exists"),
    })
}

fn array<'a>(doc: &'a mut Table, path: &str) -> &'a mut Vec<Value> {
    at(doc, path).as_array_mut().unwrap()
}

/// Changes the good document and says how it is refused.
fn refusal(change: impl FnOnce(&mut Table)) -> String {
    let mut doc: Table = good().parse().unwrap();
    change(&mut doc);
    Genesis::parse(&doc.to_string()).expect_err("the document is bad").to_string()
}

#[track_caller]
fn check(path: &str, value: impl Into<Value>, expected: &[&str]) {
    let refusal = refusal(|doc| *at(doc, path) = value.into());
    for part in expected {
        assert!(refusal.contains(part), "{path}: {refusal:?} does not say {part:?}");
    }
}

#[test]
fn a_document_reads_the_same_as_it_was_written() {
    for (nodes, institutions) in [(4, 4), (1, 1), (7, 3), (3, 6)] {
        let genesis = testing::devnet(nodes, institutions).genesis;
        let again = Genesis::parse(&genesis.to_toml()).unwrap();
        assert_eq!(again, genesis);
        assert_eq!(again.to_toml(), genesis.to_toml());
    }
}

#[test]
fn the_hash_is_over_content_alone() {
    let (genesis, ..) = testing::four();
    let mut text = String::from("# a comment\n\n");
    good().lines().for_each(|l| text += &format!("   {}  # more\n\n", l.replace(" = ", "=")));
    assert_eq!(Genesis::parse(&text).unwrap().hash(), genesis.hash());
    // The fields of a table in another order.
    let sorted = good().parse::<Table>().unwrap().to_string();
    assert_eq!(Genesis::parse(&sorted).unwrap().hash(), genesis.hash());
    // Where a node may be reached is not who the chain is.
    let mut moved: Table = good().parse().unwrap();
    let node = moved["validators"][0].as_table_mut().unwrap();
    node.insert("listen".into(), "/ip4/10.0.0.1/tcp/26600".into());
    let moved = Genesis::parse(&moved.to_string()).unwrap();
    assert_eq!(moved.hash(), genesis.hash());
    assert_eq!(moved.nodes()[0].listen.as_deref(), Some("/ip4/10.0.0.1/tcp/26600"));
}

/// A change of the canonical form would give every founded chain another identity.
#[test]
fn the_hash_stays_what_it_is() {
    let hash = testing::four().0.hash().to_string();
    assert_eq!(hash, "5063d14d1f9ec5fb05311c12bd373e3a62e4e8b59b1431517a10ba200d8a10a9");
}

#[test]
fn every_part_of_the_content_is_hashed() {
    let hash = testing::four().0.hash();
    let changes: [(&str, Value); 10] = [
        ("time", Value::Datetime("2026-01-01T00:00:00.001Z".parse().unwrap())),
        ("parameters.heartbeat_ms", 9_999.into()),
        ("parameters.block_bytes_max", 1_000_000.into()),
        ("policy.version", 2.into()),
        ("policy.rules.0.max_level", "moderate".into()),
        ("policy.rules.1.needs_case", true.into()),
        ("policy.rules.5.purpose", "marketing".into()),
        ("policy.rules.0.needs_settlement", false.into()),
        ("parameters.clock_bound_ms", 1_999.into()),
        ("parameters.equivocation", "remove".into()),
    ];
    for (path, value) in changes {
        let mut doc: Table = good().parse().unwrap();
        *at(&mut doc, path) = value;
        assert_ne!(Genesis::parse(&doc.to_string()).unwrap().hash(), hash, "{path}");
    }
    // The order of validators is who proposes when.
    let mut doc: Table = good().parse().unwrap();
    array(&mut doc, "validators").swap(0, 1);
    assert_ne!(Genesis::parse(&doc.to_string()).unwrap().hash(), hash);
}

#[test]
fn validators_that_cannot_be() {
    let twice = refusal(|doc| {
        let first = at(doc, "validators.0").clone();
        array(doc, "validators").push(first);
    });
    assert!(
        twice.contains("validators[4] (\"bureau\").consensus_key: the same stands at validators[0]"),
        "{twice}"
    );
    check("validators.2.power", 0, &["validators[2] (\"hospital-b\").power", "zero"]);
    check("validators.2.power", 1_000_001, &["validators[2]", "above 1000000"]);
    check("validators.2.power", -1, &["not well formed"]);
    check("validators.1.institution", "nobody", &["validators[1]", "\"nobody\"", "no institution"]);

    let blank = refusal(|doc| {
        drop(at(doc, "validators.1").as_table_mut().unwrap().insert("listen".into(), "a b".into()))
    });
    assert!(blank.contains("validators[1] (\"hospital-a\").listen: printable"), "{blank}");
    check("validators", Vec::<Value>::new(), &["validators: there must be at least one"]);
    let many = refusal(|doc| {
        let first = at(doc, "validators.0").clone();
        *array(doc, "validators") = vec![first; 129];
    });
    assert!(many.contains("validators: there are more than 128"), "{many}");
}

#[test]
fn keys_that_may_not_be_registered() {
    let places = ["validators.0.consensus_key", "validators.1.network_key", "institutions.3.operators.0.key"];
    for place in places {
        check(place, SMALL_ORDER, &["small order", "make a new key"]);
        check(place, MIXED_TORSION, &["torsion"]);
        check(place, NOT_CANONICAL, &["canonical"]);
        check(place, "ff", &["not well formed", "64 hexadecimal digits"]);
    }
    check("validators.0.consensus_key", SMALL_ORDER, &["validators[0] (\"bureau\").consensus_key"]);
    check(
        "institutions.3.operators.0.key",
        MIXED_TORSION,
        &["institutions[3] (\"insurer\").operators[0].key"],
    );
    let encryption = "institutions.1.encryption_key";
    check(encryption, "0".repeat(64), &["institutions[1] (\"hospital-a\").encryption_key", "small order"]);
    check(encryption, "f".repeat(64), &["canonical"]);
}

#[test]
fn a_key_has_one_use() {
    let pairs = [
        ("validators.0.network_key", "validators.0.consensus_key"),
        ("validators.3.network_key", "validators.1.network_key"),
        ("institutions.1.operators.0.key", "institutions.0.operators.0.key"),
        ("validators.0.consensus_key", "institutions.0.operators.0.key"),
        ("institutions.1.encryption_key", "institutions.0.encryption_key"),
    ];
    for (place, from) in pairs {
        let key = at(&mut good().parse().unwrap(), from).clone();
        check(place, key, &["the same stands at"]);
    }
}

#[test]
fn proofs_of_possession_must_hold() {
    let proofs =
        ["validators.0.consensus_proof", "validators.1.network_proof", "institutions.3.operators.0.proof"];
    for place in proofs {
        check(place, "00".repeat(64), &["proof of possession does not hold"]);
        check(place, "", &["128 hexadecimal digits"]);
        let missing = refusal(|doc| {
            let (table, field) = place.rsplit_once('.').unwrap();
            at(doc, table).as_table_mut().unwrap().remove(field);
        });
        assert!(missing.contains("missing field"), "{missing}");
        // One that holds for another key.
        let other = place.replace("validators.1", "validators.2").replace("validators.0", "validators.3");
        let other =
            at(&mut good().parse().unwrap(), &other.replace("institutions.3", "institutions.0")).clone();
        check(place, other, &["proof of possession does not hold"]);
    }
    check("validators.1.network_proof", "00".repeat(64), &["validators[1] (\"hospital-a\").network_key"]);
    // A proof is for one chain.
    check("chain_id", "another", &["proof of possession does not hold"]);
}

/// What an institution signed cannot be changed by whoever puts the pieces together.
#[test]
fn an_altered_piece_is_refused() {
    let stolen = encryption_public(&[9; 32]).to_string();
    check(
        "institutions.1.encryption_key",
        stolen,
        &["institutions[1] (\"hospital-a\").operators[0].key", "proof"],
    );
    check("institutions.3.roles", vec!["insurer", "bureau"], &["institutions[3]", "proof"]);
    check("institutions.3.name_zh", "别的公司", &["institutions[3]", "proof"]);
    check("institutions.3.jurisdiction", 840, &["institutions[3]", "proof"]);
    check("validators.2.power", 1000, &["institutions[2] (\"hospital-b\")", "proof"]);
    check("validators.2.institution", "insurer", &["proof"]);
    let later = Value::Datetime("2099-01-01T00:00:00Z".parse().unwrap());
    check("institutions.0.operators.0.not_after", later, &["institutions[0]", "proof"]);
}

#[test]
fn institutions_that_cannot_be() {
    let twice = refusal(|doc| {
        let first = at(doc, "institutions.0").clone();
        array(doc, "institutions").push(first);
    });
    assert!(
        twice.contains("institutions[4] (\"bureau\").slug: the same stands at institutions[0]"),
        "{twice}"
    );
    for bad in ["", "Bureau", "-a", "a-", "a b", "院", &"a".repeat(41)] {
        check("institutions.0.slug", bad, &["institutions[0]", "slug", "lower-case"]);
    }
    check("institutions.0.name_en", "", &["name_en"]);
    check("institutions.0.name_zh", "a\u{7}", &["name_zh", "control"]);
    check("institutions.0.jurisdiction", 0, &["jurisdiction: 0 is outside of 1 to 999"]);
    check("institutions.0.roles", Vec::<Value>::new(), &["roles: there must be at least one"]);
    check("institutions.0.roles", vec!["auditor", "auditor"], &["roles[1]: the same stands at"]);
    check("institutions.0.roles", vec!["king"], &["unknown variant `king`"]);
    check("institutions.0.max_level", "top", &["unknown variant `top`"]);
    check("institutions.0.operators", Vec::<Value>::new(), &["operators: there must be at least one"]);
    check("institutions", Vec::<Value>::new(), &["institutions: there must be at least one"]);
    let time = |t: &str| Value::Datetime(t.parse().unwrap());
    let place = "institutions.0.operators.0.not_after";
    check(place, time("2025-01-01T00:00:00Z"), &["ends before it begins"]);
    let early = refusal(|doc| {
        *at(doc, "institutions.0.operators.0.not_before") = time("2020-01-01T00:00:00Z");
        *at(doc, place) = time("2025-12-31T00:00:00Z");
    });
    assert!(early.contains("ends before the founding time"), "{early}");
}

#[test]
fn policies_and_parameters_that_cannot_be() {
    check("policy.rules", Vec::<Value>::new(), &["policy.rules: there must be at least one"]);
    check("policy.version", 0, &["policy.version"]);
    check(
        "policy.rules.1.purpose",
        "claims-payment",
        &["policy.rules[1]: the same stands at policy.rules[0]"],
    );
    check("policy.rules.0.needs_case", false, &["policy.rules[0]", "needs a case"]);
    check("policy.rules.0.purpose", "gossip", &["unknown variant `gossip`"]);
    let missing = refusal(|doc| drop(doc.remove("policy")));
    assert!(missing.contains("missing field `policy`"), "{missing}");
    let bounds = [
        ("transaction_life_ms", 999i64, 3_600_001i64),
        ("permit_life_ms", 999, 30 * 86_400_000 + 1),
        ("erasure_deadline_ms", 999, 365 * 86_400_000 + 1),
        ("block_bytes_max", 1000, (8 << 20) + 1),
        ("block_transactions_max", 0, 65_537),
        ("clock_bound_ms", 99, 60_001),
        ("heartbeat_ms", 99, 3_600_001),
    ];
    for (name, low, high) in bounds {
        for value in [low, high] {
            let place = format!("parameters.{name}");
            check(&place, value, &[&format!("{place}: {value} is outside of")]);
        }
    }
}

#[test]
fn text_that_is_no_document() {
    let unknown = [
        "",
        "parameters",
        "policy",
        "policy.rules.0",
        "institutions.0",
        "institutions.0.operators.0",
        "validators.0",
    ];
    for table in unknown {
        let refusal = refusal(|doc| {
            let table = if table.is_empty() { doc } else { at(doc, table).as_table_mut().unwrap() };
            table.insert("surprise".into(), 1.into());
        });
        assert!(refusal.contains("unknown field `surprise`"), "{table}: {refusal}");
    }
    check("format", 2, &["format: this build reads format 1 only"]);
    check("chain_id", "A chain", &["chain_id"]);
    for bad in ["2026-01-01", "2026-01-01T00:00:00+08:00"] {
        check("time", Value::Datetime(bad.parse().unwrap()), &["a time in UTC"]);
    }
    check("time", "2026-01-01T00:00:00Z", &["not well formed"]);
    assert!(matches!(Genesis::parse(""), Err(GenesisError::Text(_))));
    assert!(Genesis::parse("time = ").unwrap_err().to_string().contains("line 1"));
    let large = format!("{}#{}", good(), " ".repeat(FILE_BYTES_MAX));
    assert!(matches!(Genesis::parse(&large), Err(GenesisError::TooLarge)));
}

#[test]
fn files_are_read_within_bounds() {
    let path = std::env::temp_dir().join(format!("assent-genesis-{}.toml", std::process::id()));
    let missing = Genesis::load(&path).unwrap_err();
    assert!(missing.to_string().contains(&path.display().to_string()), "{missing}");
    let refused = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Genesis::load(&path).err()
    };
    assert!(refused(good().as_bytes()).is_none());
    assert!(matches!(refused(&[0xff; 10]), Some(GenesisError::Text(_))));
    assert!(matches!(refused(&vec![b'#'; FILE_BYTES_MAX + 1]), Some(GenesisError::TooLarge)));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn the_founding_state_holds_everyone() {
    let (genesis, ..) = testing::four();
    let leaves = genesis.leaves();
    let mut objects: Vec<_> = leaves.iter().map(|l| l.object).collect();
    assert!(objects.contains(&ObjectRef::POLICY) && objects.contains(&ObjectRef::PARAMETERS));
    objects.sort();
    objects.dedup();
    // Four institutions; the policy twice, as the one in force and under its version.
    assert!(objects.contains(&ObjectRef::policy(1)));
    assert_eq!((objects.len(), leaves.len()), (10, 10));
    for leaf in &leaves {
        assert_eq!(leaf.trail, leaf.object.new_trail());
        match Object::decode(leaf.object.kind, &leaf.content).unwrap() {
            Object::Policy(p) => assert_eq!(p, default_policy()),
            Object::Parameters(p) => assert_eq!(p, default_parameters()),
            Object::Institution(i) => {
                assert!(
                    genesis
                        .institutions()
                        .iter()
                        .any(|e| ObjectRef::from(e.id) == leaf.object && e.institution == i)
                );
            }
            Object::Validators(v) => {
                assert_eq!(v.at(Height(1)), genesis.validators());
                assert!(v.pending.is_none() && v.former.is_empty());
            }
            Object::Nodes(n) => {
                let keys = |n: &NodeEntry| (n.institution, n.consensus_key, n.network_key);
                let founded: Vec<_> = n.nodes.iter().map(|n| (n.institution, n.key, n.network_key)).collect();
                assert_eq!(founded, genesis.nodes().iter().map(keys).collect::<Vec<_>>());
            }
            Object::Turns(t) => assert!(t.missed.is_empty()),
            other => panic!("{other:?} is not founded"),
        }
    }
    let bureau = genesis.institution("bureau").unwrap();
    assert_eq!(bureau.id, institution_id("bureau"));
    assert_eq!(genesis.institution(&bureau.id.to_string()), Some(bureau));
    assert_eq!(genesis.institution("nobody"), None);
    assert!(bureau.institution.has(Role::Bureau) && bureau.institution.has(Role::Regulator));
    assert_eq!(genesis.trust().validators, *genesis.validators());
    assert_eq!(genesis.nodes()[2].address(), genesis.validators().validators[2].address());
    assert!(genesis.policy().rule(Purpose::Marketing).is_none());
}

fn profile(slug: &str) -> Profile {
    Profile {
        rostered_until: None,
        slug: slug.into(),
        name_en: format!("The {slug}"),
        name_zh: "机构".into(),
        roles: vec![Role::Hospital],
        max_level: Level::High,
        jurisdiction: 156,
        encryption_key: encryption_public(&[slug.len() as u8; 32]),
    }
}

fn key(n: u8) -> SecretKey {
    SecretKey::from_bytes(&[n; 32])
}

fn operator(n: u8) -> Operator {
    Operator { key: key(n), not_before: testing::TIME, not_after: testing::TIME.plus(1000) }
}

/// One institution with a validator of its own, each key made and used apart from the others.
fn piece(slug: &str, n: u8) -> Admission {
    let validator = ValidatorPiece::sign("net", slug, 5, &key(n), &key(n + 1), None);
    let validator = ValidatorPiece::parse(&validator.to_toml()).unwrap();
    let piece = Admission::sign("net", profile(slug), &[operator(n + 2)], vec![validator]).unwrap();
    let again = Admission::parse(&piece.to_toml()).unwrap();
    assert_eq!(again, piece);
    again
}

fn found(pieces: Vec<Admission>) -> Result<Genesis, GenesisError> {
    Genesis::found("net", testing::TIME, default_parameters(), default_policy(), pieces)
}

#[test]
fn a_real_network_is_founded_from_pieces() {
    let auditor = Admission::sign("net", profile("auditors"), &[operator(30)], vec![]).unwrap();
    let genesis = found(vec![piece("b", 1), piece("aa", 10), auditor.clone()]).unwrap();
    assert_eq!(found(vec![auditor, piece("aa", 10), piece("b", 1)]).unwrap(), genesis);
    assert_eq!(Genesis::parse(&genesis.to_toml()).unwrap(), genesis);
    assert_eq!((genesis.institutions().len(), genesis.nodes().len()), (3, 2));
    assert_eq!(genesis.validators().total_power(), 10);
    assert_eq!(genesis.institution("aa").unwrap(), piece("aa", 10).institution());
    for n in [1, 2, 3, 10, 11, 12, 30] {
        assert!(!genesis.to_toml().contains(&format!("{n:02x}").repeat(32)), "a secret key is in it");
    }
}

#[test]
fn pieces_that_do_not_fit_are_refused() {
    let says = |result: Result<Genesis, GenesisError>, part: &str| {
        let refusal = result.unwrap_err().to_string();
        assert!(refusal.contains(part), "{refusal:?} does not say {part:?}");
    };
    says(found(vec![]), "institutions: there must be at least one");
    says(
        found(vec![Admission::sign("net", profile("a"), &[operator(1)], vec![]).unwrap()]),
        "validators: there must be",
    );
    says(found(vec![piece("b", 1), piece("b", 10)]), "slug: the same stands at");
    says(found(vec![piece("b", 1), piece("aa", 2)]), "the same stands at");
    let other =
        Genesis::found("other", testing::TIME, default_parameters(), default_policy(), vec![piece("b", 1)]);
    says(other, "the piece was made for the chain \"net\"");
    let late = TimeMs(testing::TIME.0 + 1001);
    says(
        Genesis::found("net", late, default_parameters(), default_policy(), vec![piece("b", 1)]),
        "founding time",
    );
    let zero = Parameters { block_transactions_max: 0, ..default_parameters() };
    says(
        Genesis::found("net", testing::TIME, zero, default_policy(), vec![piece("b", 1)]),
        "block_transactions_max",
    );

    let sign =
        |chain: &str, slug: &str, power| ValidatorPiece::sign(chain, slug, power, &key(1), &key(2), None);
    let admit = |v| Admission::sign("net", profile("a"), &[operator(3)], vec![v]).unwrap_err().to_string();
    assert!(admit(sign("net", "b", 1)).contains("no institution has the slug \"b\""));
    assert!(admit(sign("other", "a", 1)).contains("made for the chain \"other\""));
    assert!(admit(sign("net", "a", 0)).contains("zero"));
    assert!(Admission::sign("net", profile("a"), &[], vec![]).unwrap_err().to_string().contains("operators"));
    assert!(
        Admission::sign("net", profile("A"), &[operator(3)], vec![])
            .unwrap_err()
            .to_string()
            .contains("slug")
    );
    let text = piece("b", 1).to_toml();
    let raised = Admission::parse(&text.replace("power = 5", "power = 6")).unwrap_err().to_string();
    assert!(raised.contains("proof of possession does not hold"), "{raised}");
    assert!(
        Admission::parse(&text.replace("power = 5", "power = 5\nvote = 1"))
            .unwrap_err()
            .to_string()
            .contains("vote")
    );
}

#[test]
fn a_devnet_has_the_nodes_asked_for_and_keys_of_its_own() {
    let plan = |nodes, institutions| Plan {
        chain_id: "dev".into(),
        time: testing::TIME,
        nodes,
        institutions,
        parameters: default_parameters(),
        policy: default_policy(),
    };
    let mut n = 0u16;
    let mut random = || {
        n += 1;
        let mut bytes = [n as u8; 32];
        bytes[0] = (n >> 8) as u8;
        bytes
    };
    let d = devnet::found(&plan(7, 3), &mut random).unwrap();
    assert_eq!((d.genesis.nodes().len(), d.genesis.institutions().len()), (7, 3));
    for (secrets, node) in d.nodes.iter().zip(d.genesis.nodes()) {
        assert_eq!(secrets.consensus.public(), node.consensus_key);
        assert_eq!(secrets.network.public(), node.network_key);
        assert_eq!(secrets.address, node.address());
        assert_eq!(institution_id(&secrets.institution), node.institution);
    }
    for (secrets, entry) in d.institutions.iter().zip(d.genesis.institutions()) {
        assert_eq!(secrets.slug, entry.slug);
        assert_eq!(secrets.operator.public(), entry.institution.keys[0].key);
        assert_eq!(encryption_public(&secrets.encryption.0), entry.institution.encryption_key);
    }
    let again = devnet::found(&plan(7, 3), &mut random).unwrap();
    assert_ne!(again.genesis.hash(), d.genesis.hash(), "other random bytes are other keys");
    let largest = devnet::found(&plan(128, devnet::INSTITUTIONS_MAX), &mut random).unwrap();
    assert!(largest.genesis.to_toml().len() < FILE_BYTES_MAX);
    let shown = format!("{d:?}");
    assert!((1..=20u8).all(|n| !shown.contains(&format!("{n:02x}").repeat(8))), "no secret is printed");
    for (nodes, institutions) in [(0, 1), (129, 1), (1, 0), (1, 29)] {
        assert!(devnet::found(&plan(nodes, institutions), &mut random).is_err());
    }
}

#[test]
fn the_founders_rules_come_from_a_file_that_says_all_of_them() {
    let text = Rules::default().to_toml();
    assert_eq!(Rules::parse(&text).unwrap(), Rules::default());
    let refused = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from} is in it");
        Rules::parse(&changed).unwrap_err().to_string()
    };
    assert!(refused("clock_bound_ms = 2000\n", "").contains("clock_bound_ms"), "nothing is left out");
    assert!(refused("clock_bound_ms", "clock_bounds_ms").contains("clock_bounds_ms"), "nothing unknown");
    assert!(refused("clock_bound_ms = 2000", "clock_bound_ms = 1").contains("parameters.clock_bound_ms"));
    assert!(refused("needs_case = true", "needs_case = false").contains("policy.rules[0]"));
    let policy = text.find("[policy]").unwrap();
    assert!(Rules::parse(&text[..policy]).unwrap_err().to_string().contains("policy"), "both tables");

    // A chain founded with other rules is another chain, with these rules in its founding state.
    let other = Rules::parse(&text.replace("heartbeat_ms = 10000", "heartbeat_ms = 5000")).unwrap();
    let (genesis, ..) = testing::four();
    let mut document: Table = good().parse().unwrap();
    document["parameters"] = other.to_toml().parse::<Table>().unwrap()["parameters"].clone();
    let founded = Genesis::parse(&document.to_string()).unwrap();
    assert_eq!(founded.parameters(), &other.parameters);
    assert_ne!(founded.hash(), genesis.hash());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        prop_assert!(Genesis::parse(&text).is_err());
        prop_assert!(Admission::parse(&text).is_err());
        prop_assert!(Rules::parse(&text).is_err());
        prop_assert!(ValidatorPiece::parse(&text).is_err());
    }

    /// A good document with some bytes replaced: refused, or of the same hash, or (where what was changed is
    /// the founders' to say) another chain. Never a panic.
    #[test]
    fn a_damaged_document_is_answered(place in any::<prop::sample::Index>(), length in 0..40usize, by in "\\PC{0,12}") {
        let mut text: Vec<char> = good().chars().collect();
        let start = place.index(text.len());
        let end = (start + length).min(text.len());
        text.splice(start..end, by.chars());
        if let Ok(g) = Genesis::parse(&text.into_iter().collect::<String>()) {
            prop_assert_eq!(Genesis::parse(&g.to_toml()).unwrap(), g);
        }
    }
}

/// R17: who may act in emergencies is founded, and is part of what the chain is.
#[test]
fn r17_the_roster_is_read_and_hashed() {
    let (genesis, ..) = testing::four();
    let rostered = |g: &Genesis, slug| g.institution(slug).unwrap().institution.rostered_until;
    assert!(rostered(&genesis, "hospital-a").is_some());
    assert_eq!(rostered(&genesis, "insurer"), None);
    assert_eq!(Genesis::parse(good()).unwrap().institutions(), genesis.institutions());
    // An operator signs the whole of its piece: nobody else puts an institution on the roster.
    let until = Value::Datetime("2030-01-01T00:00:00Z".parse().unwrap());
    let added = refusal(|doc| {
        drop(at(doc, "institutions.3").as_table_mut().unwrap().insert("rostered_until".into(), until))
    });
    assert!(added.contains("institutions[3] (\"insurer\").operators[0].key: the proof"), "{added}");
    check("institutions.1.rostered_until", "soon", &["not well formed"]);
}

/// R14: the negative list stands in the founding document, and each entry prohibits something.
#[test]
fn r14_the_negative_list_is_read_hashed_and_says_what_it_prohibits() {
    let entry = |fields: &[(&str, Value)]| {
        Value::Table(fields.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
    };
    let with = |doc: &mut Table, entries: Vec<Value>| {
        drop(at(doc, "policy").as_table_mut().unwrap().insert("prohibited".into(), entries.into()))
    };
    let item = "11".repeat(32);
    let entries = vec![
        entry(&[("purpose", "marketing".into())]),
        entry(&[("item", item.as_str().into()), ("purpose", "research".into())]),
        entry(&[("category", "prescription".into())]),
    ];
    let mut doc: Table = good().parse().unwrap();
    with(&mut doc, entries.clone());
    let genesis = Genesis::parse(&doc.to_string()).unwrap();
    assert_ne!(genesis.hash(), testing::four().0.hash());
    let listed = &genesis.policy().prohibited;
    assert_eq!((listed.len(), listed[0].purpose, listed[0].item), (3, Some(Purpose::Marketing), None));
    assert_eq!(listed[1].item.map(|i| i.to_string()), Some(item));
    assert_eq!(Genesis::parse(&genesis.to_toml()).unwrap(), genesis);

    let nothing = refusal(|doc| with(doc, vec![entries[0].clone(), entry(&[])]));
    assert!(nothing.contains("policy.prohibited[1]: name a purpose"), "{nothing}");
    let many = refusal(|doc| with(doc, vec![entries[0].clone(); 65]));
    assert!(many.contains("policy.prohibited: there are more than 64"), "{many}");
    let unknown = refusal(|doc| with(doc, vec![entry(&[("level", "high".into())])]));
    assert!(unknown.contains("not well formed"), "{unknown}");
}

/// R10: who decides on the next policy is founded; so many that each role has an institution of its own.
#[test]
fn r10_the_committee_is_read_hashed_and_can_decide() {
    let mut doc: Table = good().parse().unwrap();
    *at(&mut doc, "policy.committee.approvals") = 3.into();
    assert_ne!(Genesis::parse(&doc.to_string()).unwrap().hash(), testing::four().0.hash());
    let range = |n: i64| check("policy.committee.approvals", n, &["policy.committee.approvals", "2 to 128"]);
    [0, 1, 129].into_iter().for_each(range);
    let mut doc: Table = good().parse().unwrap();
    *at(&mut doc, "policy.committee.approvals") = 128.into();
    assert!(Genesis::parse(&doc.to_string()).is_ok());
    let roles = "policy.committee.roles";
    check(roles, Vec::<Value>::new(), &["policy.committee.roles: there must be at least one"]);
    check(roles, vec![Value::from("court"); 2], &["policy.committee.roles[1]", "the same"]);
    let five = ["court", "regulator", "hospital", "insurer", "bureau"].map(Value::from).to_vec();
    check(roles, five, &["policy.committee.roles", "more than 4"]);
    let missing = refusal(|doc| drop(at(doc, "policy").as_table_mut().unwrap().remove("committee")));
    assert!(missing.contains("committee"), "{missing}");
}

/// R16, R17: each new bound just inside and just outside.
#[test]
fn r16_r17_the_bounds_of_recovery_and_emergency() {
    const DAY_MS: i64 = 86_400_000;
    let bounds = [
        ("recovery_approvals", 1, 8),
        ("recovery_delay_ms", 1_000, 365 * DAY_MS),
        ("emergency_permit_life_ms", 1_000, DAY_MS),
        ("emergency_anchor_ms", 1_000, 30 * DAY_MS),
        ("emergency_review_ms", 1_000, 365 * DAY_MS),
        ("emergency_notice_ms", 1_000, 365 * DAY_MS),
    ];
    let hash = testing::four().0.hash();
    for (name, min, max) in bounds {
        let path = format!("parameters.{name}");
        for bad in [min - 1, max + 1] {
            check(&path, bad, &[&path, "outside of"]);
        }
        for good_value in [min, max] {
            let mut doc: Table = good().parse().unwrap();
            *at(&mut doc, &path) = good_value.into();
            assert_ne!(Genesis::parse(&doc.to_string()).unwrap().hash(), hash, "{path}");
        }
        let left_out = refusal(|doc| drop(at(doc, "parameters").as_table_mut().unwrap().remove(name)));
        assert!(left_out.contains(name), "{left_out}");
    }
}
