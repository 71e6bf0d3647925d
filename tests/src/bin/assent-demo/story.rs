//! The story in twelve steps. Each step does it through `assent`, checks that it came out as told, and says what can
//! be proved from then on. Times are those of this machine; persons are fictitious.

mod consent;
mod lineage;
mod persons;
mod preparation;
mod proof;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::stage::{Failure, Stage};

/// Nodes by institution, in the order of the network.
const BUREAU: usize = 0;
const HOSPITAL_A: usize = 1;
const HOSPITAL_B: usize = 2;
const INSURER: usize = 3;
const NAMES: [&str; 4] = ["bureau", "hospital-a", "hospital-b", "insurer"];

/// An insured person and the accounts in her wallet.
struct Person {
    name: String,
    patient: String,
    wallet: String,
    accounts: BTreeMap<&'static str, String>,
}

/// What later steps need from earlier ones.
struct Story<'a> {
    stage: &'a mut Stage,
    persons: Vec<Person>,
    items: BTreeMap<String, String>,
    case: String,
    until: String,
}

/// Tells it all.
pub(crate) fn tell(stage: &mut Stage) -> Result<(), Failure> {
    let until = days_from_now(30)?;
    let mut story = Story { stage, persons: Vec::new(), items: BTreeMap::new(), case: String::new(), until };
    story.enrolment()?;
    story.anchoring()?;
    let offer = story.no_authorization()?;
    let settled = story.one_case(&offer)?;
    story.exactly_once(&settled)?;
    story.withdrawal(&offer)?;
    story.lineage()?;
    story.guardian()?;
    story.emergency()?;
    story.lost_wallet()?;
    story.supervision()?;
    story.belief_is_not_needed(&settled)
}

/// What the fourth step leaves behind.
struct Settled {
    grant: String,
    permit: String,
    delivery: String,
    offer: PathBuf,
}

impl Story<'_> {
    fn keyfile(&self, institution: usize) -> String {
        let node = &self.stage.network.nodes[institution];
        node.home.join("operator.age").display().to_string()
    }

    fn store(&self, custodian: usize) -> String {
        self.file(&format!("{}.store", NAMES[custodian]))
    }

    /// A working file: what passes between the parties, and what each keeps.
    fn file(&self, name: &str) -> String {
        self.stage.work(name).display().to_string()
    }

    fn evidence(&self, name: &str) -> String {
        self.stage.path(format!("evidence/{name}.evidence")).display().to_string()
    }

    /// `assent institution …` by one institution, asked through its own node.
    fn institution(&self, who: usize, args: &[&str]) -> Result<Value, Failure> {
        self.stage.run(who, &self.institution_args(who, args))
    }

    fn institution_args<'b>(&self, who: usize, args: &[&'b str]) -> Vec<&'b str> {
        let keyfile: &'static str = String::leak(self.keyfile(who));
        [&["institution"], &args[..1], &["--keyfile", keyfile], &args[1..]].concat()
    }
}

fn reference(resource: &Value) -> String {
    let field = |f: &str| resource[f].as_str().unwrap_or_default().to_string();
    format!("{}/{}", field("resourceType"), field("id"))
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|l| l.iter().any(|e| e == word))
}

/// Ids of a trace's nodes of one kind.
fn nodes(trace: &Value, kind: &str) -> Vec<String> {
    let all = trace["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|n| n["kind"] == kind).filter_map(|n| n["id"].as_str().map(String::from)).collect()
}

fn count(reply: &Value, field: &str) -> usize {
    reply[field].as_array().map_or(0, Vec::len)
}

/// The date so many days from now.
fn days_from_now(days: i64) -> Result<String, Failure> {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    Ok(now.date().checked_add(jiff::Span::new().days(days))?.to_string())
}

/// The first day of a year that begins at least a year from now.
fn january() -> Result<String, Failure> {
    let year = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).year();
    Ok(jiff::civil::Date::new(year + 2, 1, 1)?.to_string())
}
