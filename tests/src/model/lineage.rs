//! What was made of what (R24, R28). Rules 150 to 158.

use assent_proto::code::Denial;
use assent_proto::event::EventKind;
use assent_proto::ids::*;
use assent_proto::state::{Artifact, ObjectRef};
use assent_proto::transaction::*;

use super::{Asked, Model, Verdict, event, has_twice, refuse};

impl Model {
    pub(crate) fn artifact(&self, id: ArtifactId) -> Option<Artifact> {
        self.applied().find_map(|d| match &d.asked.action {
            Action::RecordActivity(a) => {
                let product = a.outputs.iter().find(|p| p.id == id)?;
                Some(Artifact {
                    activity: d.asked.body,
                    agent: d.asked.institution(),
                    kind: a.kind,
                    level: product.level,
                    height: d.at.height,
                })
            }
            _ => None,
        })
    }

    pub(crate) fn artifacts(&self) -> Vec<ArtifactId> {
        let made = self.applied().filter_map(|d| match &d.asked.action {
            Action::RecordActivity(a) => Some(a.outputs.iter().map(|p| p.id)),
            _ => None,
        });
        made.flatten().collect()
    }

    pub(crate) fn record_activity(&self, asked: &Asked, a: &RecordActivity) -> Verdict {
        let twice = has_twice(&a.permits) || has_twice(&a.artifacts) || has_twice(&a.excluded);
        refuse(Denial::DuplicateRecord, twice)?;
        let agent = asked.institution();
        let mut highest = 0;
        let mut trails: Vec<ObjectRef> = vec![agent.into()];
        for id in &a.permits {
            let p = self.permit(*id).ok_or(Denial::NoSuchPermit)?;
            refuse(Denial::NotTheRequester, p.request.requester != agent)?;
            // A custodian has its own records without a delivery.
            refuse(Denial::NotDelivered, p.delivered.is_none() && p.custodian != agent)?;

            let allowed = match a.kind {
                ActivityKind::Reuse => p.request.action != UseAction::Disclose,
                _ => matches!(p.request.action, UseAction::Compute | UseAction::Derive),
            };
            refuse(Denial::ActionNotPermitted, !allowed)?;
            highest = highest.max(p.level as u8);
            trails.push((*id).into());
            let told = self.told(&p.request);
            trails.extend(self.named(&p.request).map(ObjectRef::from).filter(|p| told.contains(p)));
        }
        for id in &a.artifacts {
            let made = self.artifact(*id).ok_or(Denial::NoSuchArtifact)?;
            refuse(Denial::NotTheMaker, made.agent != agent)?;
            highest = highest.max(made.level as u8);
            trails.push((*id).into());
        }
        let new: Vec<_> = a.outputs.iter().map(|p| p.id).collect();
        for (i, product) in a.outputs.iter().enumerate() {
            let taken = new[..i].contains(&product.id) || self.artifact(product.id).is_some();
            refuse(Denial::OutputExists, taken)?;
            refuse(Denial::OutputLevelTooLow, (product.level as u8) < highest)?;
        }
        trails.extend(new.iter().map(|id| ObjectRef::from(*id)));
        Ok(vec![event(EventKind::ActivityRecorded, new[0], trails)])
    }
}
