//! Items, levels, openings, anchored batches, settlements (R1, R11, R20, R21). Rules 133 to 145.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Item, ObjectRef, Role};
use assent_proto::transaction::*;

use super::{Asked, Model, Verdict, event, has_role, has_twice, refuse};

impl Model {
    pub(crate) fn item(&self, id: ItemId) -> Option<Item> {
        self.item_at(id, self.history.len())
    }

    /// An item as it was before the transaction at a place of the history.
    pub(crate) fn item_at(&self, id: ItemId, place: usize) -> Option<Item> {
        let mut item: Option<Item> = None;
        for d in self.history[..place].iter().filter(|d| d.verdict.is_ok()) {
            let graded = match &d.asked.action {
                Action::RegisterItem(r) if ItemId::of(r.code, r.scope) == id => {
                    item = Some(Item {
                        code: r.code,
                        scope: r.scope,
                        category: r.category,
                        custodian: d.asked.institution(),
                        level: r.level,
                        opening: r.opening,
                        recipients: r.recipients.clone(),
                        graded_height: d.at.height,
                    });
                    None
                }
                Action::Classify(c) => Some(c),
                _ => match d.enacts().and_then(|p| self.proposed(p)).map(|(_, p)| &p.change) {
                    Some(Change::Grading(c)) => Some(c),
                    _ => None,
                },
            };
            if let (Some(c), Some(item)) = (graded.filter(|c| c.item == id), &mut item) {
                if c.level != item.level {
                    item.graded_height = d.at.height;
                }
                item.level = c.level;
                item.opening = c.opening;
                item.recipients = c.recipients.clone();
            }
        }
        item
    }

    pub(crate) fn items(&self) -> Vec<ItemId> {
        let registered = self.applied().filter_map(|d| match &d.asked.action {
            Action::RegisterItem(r) => Some(ItemId::of(r.code, r.scope)),
            _ => None,
        });
        registered.collect()
    }

    /// The transaction that settled a case.
    pub(crate) fn settlement(&self, case: CaseId) -> Option<&super::Done> {
        self.applied()
            .find(|d| matches!(&d.asked.action, Action::AnchorRecords(a) if a.settles.contains(&case)))
    }

    pub(crate) fn register_item(&self, asked: &Asked, a: &RegisterItem) -> Verdict {
        let author = self.author(asked);
        let bureau = has_role(&author, Role::Bureau);
        let holds = bureau || a.category != Category::Settlement && has_role(&author, Role::Hospital);
        refuse(Denial::NotPermittedRole, !holds)?;
        let id = ItemId::of(a.code, a.scope);
        self.may_open(asked.institution(), a.level, a.opening, &a.recipients)?;
        refuse(Denial::ItemTaken, self.item(id).is_some())?;
        let trails = [asked.author_ref()].into_iter().chain(a.recipients.iter().map(|r| (*r).into()));
        Ok(vec![event(EventKind::ItemRegistered, id, trails.take(1))])
    }

    /// Rules 135 to 138.
    pub(crate) fn may_open(
        &self,
        custodian: InstitutionId,
        level: Level,
        opening: Opening,
        recipients: &[InstitutionId],
    ) -> Result<(), Denial> {
        let wrong = match level {
            Level::High => opening != Opening::Prohibited,
            Level::Moderate | Level::Low => opening == Opening::Unconditional,
            Level::None => false,
        };
        refuse(Denial::OpeningNotAllowed, wrong)?;
        let directed = opening == Opening::Directed;
        refuse(Denial::RecipientsMismatch, directed == recipients.is_empty())?;
        refuse(Denial::NoSuchInstitution, recipients.iter().any(|r| self.institution(*r).is_none()))?;
        refuse(Denial::SameInstitution, recipients.contains(&custodian))
    }

    pub(crate) fn classify(&self, asked: &Asked, a: &Classify) -> Verdict {
        let item = self.item(a.item).ok_or(Denial::NoSuchItem)?;
        refuse(Denial::NotTheSource, item.custodian != asked.institution())?;
        refuse(Denial::GradingDown, (a.level as u8) < (item.level as u8))?;
        self.may_open(item.custodian, a.level, a.opening, &a.recipients)?;
        Ok(vec![event(EventKind::Classified, a.item, [asked.author_ref()])])
    }

    pub(crate) fn anchor_records(&self, asked: &Asked, a: &AnchorRecords) -> Verdict {
        let item = self.item(a.item).ok_or(Denial::NoSuchItem)?;
        refuse(Denial::NotTheSource, item.custodian != asked.institution())?;
        let settles = has_role(&self.author(asked), Role::Bureau) && item.category == Category::Settlement;
        refuse(Denial::NotPermittedRole, !a.settles.is_empty() && !settles)?;
        refuse(Denial::DuplicateRecord, has_twice(&a.settles))?;
        refuse(Denial::AlreadySettled, a.settles.iter().any(|c| self.settlement(*c).is_some()))?;
        let author: ObjectRef = asked.author_ref();
        let mut events = vec![event(EventKind::Anchored, BatchId(asked.body.0), [author, a.item.into()])];
        events.extend(a.settles.iter().map(|c| event(EventKind::Settled, *c, [author])));
        Ok(events)
    }
}
