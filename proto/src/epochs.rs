//! Who votes at which height, for a verifier that is shown evidence again and again: each change of the
//! validators is verified once and remembered. Nothing here is believed that [`crate::evidence`] would refuse.

use crate::block::CertifiedHeader;
use crate::evidence::{BadEvidence, BadLink, Evidence, Trust, ValidatorLink, Verdict, verify_header};
use crate::field::Message;
use crate::ids::Height;
use crate::validators::ValidatorSet;

/// The changes of the validators that were verified so far, from the founding on.
#[derive(Clone, Debug)]
pub struct Epochs {
    trust: Trust,
    links: Vec<ValidatorLink>,
}

impl Epochs {
    /// Knows the founding set alone.
    pub fn new(trust: Trust) -> Epochs {
        Epochs { trust, links: Vec::new() }
    }

    /// What was believed beforehand.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// How many changes are known.
    pub fn changes(&self) -> usize {
        self.links.len()
    }

    /// The set that votes at a height, as far as changes are known.
    pub fn at(&self, height: Height) -> &ValidatorSet {
        let last = self.links.iter().rev().find(|l| l.certified.header.height < height);
        last.map_or(&self.trust.validators, |l| &l.next)
    }

    /// The set that the changes shown lead to. Those that are known need no verification; one that differs from
    /// what was shown in its place is refused, even if it is certified: the chain would have forked.
    pub fn follow(&mut self, links: &[ValidatorLink]) -> Result<&ValidatorSet, BadEvidence> {
        for (i, link) in links.iter().enumerate() {
            let height = link.certified.header.height;
            let bad = |why| BadEvidence::Link { number: i + 1, height, why };
            match self.links.get(i) {
                // Which validators signed may differ from one node to the other.
                Some(known) if same(known, link) => {}
                Some(_) => return Err(bad(BadLink::OtherHistory)),
                None => {
                    let below = self.links.last().map_or(Height(0), |l| l.certified.header.height);
                    link.verify(&self.trust, self.after(i), below).map_err(bad)?;
                    self.links.push(link.clone());
                }
            }
        }
        Ok(self.after(links.len()))
    }

    /// Reads and verifies evidence.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(Evidence, Verdict), BadEvidence> {
        let evidence = <Evidence as Message>::decode(bytes)?;
        let set = self.follow(&evidence.links)?.clone();
        let verdict = evidence.verify_by(&self.trust, &set)?;
        Ok((evidence, verdict))
    }

    /// Verifies a header of a chain that is read in order, with the set that it names for the height above if
    /// that is another one: from there on it is known.
    pub fn header(
        &mut self,
        certified: &CertifiedHeader,
        next: Option<&ValidatorSet>,
    ) -> Result<(), BadEvidence> {
        let (header, set) = (&certified.header, self.at(certified.header.height));
        verify_header(certified, &self.trust, set)?;
        if header.next_validators == header.validators {
            return Ok(());
        }
        let number = self.links.iter().filter(|l| l.certified.header.height < header.height).count() + 1;
        let bad = |why| BadEvidence::Link { number, height: header.height, why };
        let next = next.ok_or(bad(BadLink::OtherNext))?;
        let link = ValidatorLink { certified: certified.clone(), next: next.clone() };
        match self.links.get(number - 1) {
            Some(known) if same(known, &link) => Ok(()),
            Some(_) => Err(bad(BadLink::OtherHistory)),
            None => {
                link.verify(&self.trust, set, Height(0)).map_err(bad)?;
                self.links.push(link);
                Ok(())
            }
        }
    }

    fn after(&self, links: usize) -> &ValidatorSet {
        links.checked_sub(1).map_or(&self.trust.validators, |i| &self.links[i].next)
    }
}

fn same(a: &ValidatorLink, b: &ValidatorLink) -> bool {
    a.certified.header == b.certified.header && a.next == b.next
}
