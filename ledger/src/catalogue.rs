//! What data there is: items with their one source, their grading, and anchored batches of records.

use std::collections::BTreeSet;

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Batch, Item, Role, Settlement};
use assent_proto::transaction::*;

use crate::apply::Call;
use crate::outcome::Outcome;
use crate::overlay::Overlay;

/// Enters an item; the first to do so is its one source (R20).
pub(crate) fn register(call: &Call, by: &InstitutionId, r: &RegisterItem) -> Result<Outcome, Denial> {
    let author = call.author(by);
    // Custody is true to life: care and fee details are the hospital's, settlements the bureau's (R1).
    let holds = match r.category {
        Category::Settlement => author.has(Role::Bureau),
        _ => author.has(Role::Hospital) || author.has(Role::Bureau),
    };
    if !holds {
        return Err(Denial::NotPermittedRole);
    }
    may_open(call.state, by, r.level, r.opening, &r.recipients)?;
    let id = ItemId::of(r.code, r.scope);
    if call.state.has(id) {
        return Err(Denial::ItemTaken);
    }
    let item = Item {
        code: r.code,
        scope: r.scope,
        category: r.category,
        custodian: *by,
        level: r.level,
        opening: r.opening,
        recipients: r.recipients.clone(),
        graded_height: call.block.height,
    };
    Ok(Outcome::default().write(id, &item).event(EventKind::ItemRegistered, id, []))
}

/// Grades an item anew, never down (R21).
pub(crate) fn classify(call: &Call, by: &InstitutionId, c: &Classify) -> Result<Outcome, Denial> {
    let item = own_item(call, by, &c.item)?;
    if c.level < item.level {
        return Err(Denial::GradingDown);
    }
    may_open(call.state, by, c.level, c.opening, &c.recipients)?;
    let item = graded(item, call.block.height, c);
    Ok(Outcome::default().write(c.item, &item).event(EventKind::Classified, c.item, []))
}

/// The item as it is once it is graded down, which its custodian cannot decide alone (R21).
pub(crate) fn graded_down(state: &Overlay, height: Height, c: &Classify) -> Result<Item, Denial> {
    let item: Item = state.get(c.item).ok_or(Denial::NoSuchItem)?;
    if c.level >= item.level {
        return Err(Denial::NotGradedDown);
    }
    may_open(state, &item.custodian, c.level, c.opening, &c.recipients)?;
    Ok(graded(item, height, c))
}

fn graded(item: Item, height: Height, c: &Classify) -> Item {
    let graded_height = if c.level == item.level { item.graded_height } else { height };
    Item { level: c.level, opening: c.opening, recipients: c.recipients.clone(), graded_height, ..item }
}

/// Which openings a level allows without governance's exception, and whether recipients are named just
/// where the opening is directed to them (R11). A source that opens an item to itself would be on both sides
/// of the decision (R10).
fn may_open(
    state: &Overlay,
    custodian: &InstitutionId,
    level: Level,
    opening: Opening,
    recipients: &[InstitutionId],
) -> Result<(), Denial> {
    let allowed = match level {
        Level::High => opening == Opening::Prohibited,
        Level::Moderate | Level::Low => opening != Opening::Unconditional,
        Level::None => true,
    };
    if !allowed {
        return Err(Denial::OpeningNotAllowed);
    }
    if (opening == Opening::Directed) == recipients.is_empty() {
        return Err(Denial::RecipientsMismatch);
    }
    if !recipients.iter().all(|r| state.has(*r)) {
        return Err(Denial::NoSuchInstitution);
    }
    if recipients.contains(custodian) { Err(Denial::SameInstitution) } else { Ok(()) }
}

/// Anchors a batch of records, and with a bureau's settlements settles cases (R1, R6).
pub(crate) fn anchor(call: &Call, by: &InstitutionId, a: &AnchorRecords) -> Result<Outcome, Denial> {
    let item = own_item(call, by, &a.item)?;
    may_settle(call, by, &item, &a.settles)?;
    let id = BatchId(call.body.0);
    let batch = Batch {
        item: a.item,
        custodian: *by,
        root: a.root,
        count: a.count,
        height: call.block.height,
        time: call.block.time,
    };
    let mut outcome = Outcome::default().write(id, &batch).event(EventKind::Anchored, id, [a.item.into()]);
    let settlement = Settlement { batch: id, settler: *by, height: call.block.height };
    for case in &a.settles {
        outcome = outcome.write(*case, &settlement).event(EventKind::Settled, *case, [id.into()]);
    }
    Ok(outcome)
}

fn may_settle(call: &Call, by: &InstitutionId, item: &Item, cases: &[CaseId]) -> Result<(), Denial> {
    if cases.is_empty() {
        return Ok(());
    }
    if item.category != Category::Settlement || !call.author(by).has(Role::Bureau) {
        return Err(Denial::NotPermittedRole);
    }
    if cases.iter().collect::<BTreeSet<_>>().len() < cases.len() {
        return Err(Denial::DuplicateRecord);
    }
    if cases.iter().any(|case| call.state.has(*case)) {
        return Err(Denial::AlreadySettled);
    }
    Ok(())
}

fn own_item(call: &Call, by: &InstitutionId, id: &ItemId) -> Result<Item, Denial> {
    let item: Item = call.state.get(*id).ok_or(Denial::NoSuchItem)?;
    if item.custodian == *by { Ok(item) } else { Err(Denial::NotTheSource) }
}
