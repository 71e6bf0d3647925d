//! What may be in a block at all: who signs (R2, R16, R18), when, and once.

use assent_proto::code::Invalid;
use assent_proto::envelope::VerifiedTx;
use assent_proto::ids::*;
use assent_proto::keys::PublicKey;
use assent_proto::transaction::*;

use super::Model;

/// Who signs besides the author.
pub(crate) enum Second {
    New(PublicKey),
    Person(AccountId),
    Institution(InstitutionId),
}

/// Who signs second, after the words on each action.
pub(crate) fn second(action: &Action) -> Option<Second> {
    Some(match action {
        Action::Enrol(a) => Second::New(a.key),
        Action::RotateKey(a) => Second::New(a.key),
        Action::Recover(a) => Second::New(a.key),
        Action::RotateOperator(a) => Second::New(a.add.as_ref()?.key),
        Action::RequestAccess(a) => Second::Person(a.person?),
        Action::Delegate(a) if a.capacity == Capacity::Guardian => Second::Person(a.delegate),
        Action::Delegate(a) => Second::Person(a.ward),
        Action::AnchorEmergency(a) => Second::Institution(a.requester),
        Action::IssueOrder(a) => Second::Institution(a.cosigner),
        _ => return None,
    })
}

impl Model {
    /// Whether a transaction may be in a block that comes next, at a time. `self.at` is that block.
    pub(crate) fn valid(&self, tx: &VerifiedTx) -> Result<(), Invalid> {
        let no = |code: Invalid, when: bool| if when { Err(code) } else { Ok(()) };
        let (now, body, signers) = (self.at.time, tx.body(), tx.signers());
        no(Invalid::Expired, body.expires_at < now)?;
        let latest = now.plus(self.parameters().transaction_life_ms);
        no(Invalid::TooFarAhead, body.expires_at > latest)?;
        no(Invalid::Replay, self.history.iter().any(|d| d.asked.body == tx.body_id()))?;
        let person = matches!(body.author, Author::Account(_));
        let persons = matches!(
            body.action,
            Action::Grant(_)
                | Action::Revoke(_)
                | Action::RotateKey(_)
                | Action::VetoRecovery(_)
                | Action::Ratify(_)
        );
        let either = matches!(body.action, Action::EndDelegation(_));
        no(Invalid::WrongKey, !either && person != persons)?;
        let second = second(&body.action);
        no(Invalid::MissingSignature, signers.len() != 1 + usize::from(second.is_some()))?;
        match body.author {
            Author::Account(id) => self.signs_for_account(id, &signers[0])?,
            Author::Institution(id) => {
                let reports = matches!(body.action, Action::ReportEquivocation(_));
                let votes = reports && self.votes_by(id, &signers[0]);
                let known = self.signs_for_institution(id, &signers[0]);
                no(Invalid::UnknownAuthor, self.institution(id).is_none())?;
                if !votes {
                    known?;
                }
            }
        }
        match second {
            None => Ok(()),
            Some(Second::New(key)) => {
                no(Invalid::WrongKey, key != signers[1])?;
                no(Invalid::BadKey, key.check().is_err())
            }
            // Only who asks can be an unknown author.
            Some(Second::Person(id)) => {
                self.signs_for_account(id, &signers[1]).map_err(|_| Invalid::WrongKey)
            }
            Some(Second::Institution(id)) => {
                self.signs_for_institution(id, &signers[1]).map_err(|_| Invalid::WrongKey)
            }
        }
    }

    fn signs_for_account(&self, id: AccountId, key: &PublicKey) -> Result<(), Invalid> {
        let person = self.person(id).ok_or(Invalid::UnknownAuthor)?;
        if person.key == *key { Ok(()) } else { Err(Invalid::WrongKey) }
    }

    fn signs_for_institution(&self, id: InstitutionId, key: &PublicKey) -> Result<(), Invalid> {
        let i = self.institution(id).ok_or(Invalid::UnknownAuthor)?;
        let now = self.at.time;
        let current = i.keys.iter().any(|k| k.key == *key && k.not_before <= now && now <= k.not_after);
        if current { Ok(()) } else { Err(Invalid::WrongKey) }
    }

    /// Who votes, or did when the newest set was decided; a key that has just been left out may still report.
    fn votes_by(&self, id: InstitutionId, key: &PublicKey) -> bool {
        let (_, newest, decided) = self.sets().pop().expect("from the founding on");
        let before = self.set_at(decided);
        before.validators.iter().chain(&newest.validators).any(|v| v.institution == id && v.key == *key)
    }
}
