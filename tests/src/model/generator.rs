//! Random sequences over the small world. Most transactions are plausible, then some are spoilt in one place, so that
//! both what is applied and each refusal is common. Nothing here decides anything.

use assent_ledger::BlockContext;
use assent_ledger::testing::{admission, contradiction, digest, list};
use assent_proto::envelope::VerifiedTx;
use assent_proto::field::{List, Message};
use assent_proto::ids::*;
use assent_proto::keys::{Algorithm, PublicKey, encryption_public};
use assent_proto::merkle;
use assent_proto::state::*;
use assent_proto::transaction::*;
use assent_proto::validators::Validator;

use super::Model;
use super::delivery::Permitted;
use super::persons::{quarter_of, quarter_start};
use super::validity::{Second, second};
use super::world::{DAY_MS, Dice, World, artifact, case, consensus, newcomer, operator, wallet};

/// What a sequence is mostly about.
const THEMES: &[&[(ActionKind, u64)]] = &[
    &[],
    &[
        (ActionKind::Grant, 25),
        (ActionKind::RequestAccess, 45),
        (ActionKind::Revoke, 16),
        (ActionKind::Deliver, 30),
        (ActionKind::NotDelivered, 10),
        (ActionKind::AttestErasure, 16),
        (ActionKind::Classify, 6),
    ],
    &[
        (ActionKind::RotateKey, 15),
        (ActionKind::Recover, 45),
        (ActionKind::VetoRecovery, 12),
        (ActionKind::Grant, 15),
        (ActionKind::Delegate, 10),
    ],
    &[
        (ActionKind::Delegate, 25),
        (ActionKind::EndDelegation, 15),
        (ActionKind::Ratify, 18),
        (ActionKind::Grant, 35),
        (ActionKind::RequestAccess, 25),
        (ActionKind::Revoke, 6),
    ],
    &[
        (ActionKind::RequestAccess, 60),
        (ActionKind::AnchorEmergency, 25),
        (ActionKind::ReviewEmergency, 20),
        (ActionKind::NotifyPerson, 20),
        (ActionKind::IssueOrder, 15),
    ],
    &[
        (ActionKind::Propose, 40),
        (ActionKind::Approve, 90),
        (ActionKind::RotateOperator, 10),
        (ActionKind::ReportEquivocation, 10),
        (ActionKind::RequestAccess, 15),
    ],
    &[
        (ActionKind::RequestAccess, 40),
        (ActionKind::Deliver, 40),
        (ActionKind::RecordActivity, 40),
        (ActionKind::Grant, 15),
        (ActionKind::RegisterItem, 8),
        (ActionKind::ReviewOpening, 8),
    ],
];

/// What can be too many: early withdrawals, emergencies, proposals.
const FLOODS: [ActionKind; 3] = [ActionKind::Revoke, ActionKind::RequestAccess, ActionKind::Propose];

/// Makes one sequence.
pub(crate) struct Generator {
    pub(crate) world: World,
    dice: Dice,
    weights: Vec<(ActionKind, u64)>,
    /// Grants that are signed and kept back, so that a withdrawal can come first.
    held: Vec<(Body, Vec<PublicKey>)>,
    /// What was made before, so that it can come a second time.
    old: Vec<(Body, Vec<PublicKey>)>,
    /// Of what there are once more than the rules bear.
    flood: Option<ActionKind>,
    /// How many in a hundred are signed wrongly.
    wrongly: u64,
}

impl Generator {
    pub(crate) fn new(world: World, seed: u64) -> Generator {
        let mut dice = Dice::of(seed);
        let theme = dice.one(THEMES);
        let base = if theme.is_empty() { 5 } else { 2 };
        let mut weights: Vec<_> = ActionKind::ALL.iter().map(|k| (*k, base)).collect();
        for (kind, weight) in theme {
            weights.iter_mut().filter(|(k, _)| k == kind).for_each(|(_, w)| *w += weight);
        }
        if theme.is_empty() {
            weights.iter_mut().filter(|(k, _)| *k == ActionKind::RequestAccess).for_each(|(_, w)| *w += 30);
        }
        let flood = (seed % 25 == 7).then_some(FLOODS[(seed / 25 % 3) as usize]);
        Generator { world, dice, weights, held: Vec::new(), old: Vec::new(), flood, wrongly: 2 }
    }

    /// The blocks that every sequence begins with: persons, items, records.
    pub(crate) fn opening(world: World) -> Generator {
        let (dice, weights, held, old) = (Dice::of(0), vec![], vec![], vec![]);
        Generator { world, dice, weights, held, old, flood: None, wrongly: 0 }
    }

    /// Where the next block stands: shortly after, or around a moment at which something changes.
    pub(crate) fn next(&mut self, m: &Model) -> BlockContext {
        let (height, now) = (m.at.height.next(), m.at.time);
        let near = now.plus(1 + self.dice.below(30_000));
        let mut moments: Vec<_> = moments(m).into_iter().filter(|t| *t > now).collect();
        moments.sort();
        // Not beyond the operators' keys.
        moments.retain(|t| *t < now.plus(400 * DAY_MS));
        if !self.dice.chance(32) || moments.is_empty() {
            return BlockContext { height, time: near };
        }
        let first = if self.dice.chance(70) { moments.len().min(4) } else { moments.len() };
        let moment = self.dice.one(&moments[..first]).0;
        let time = TimeMs((moment + self.dice.below(3)).saturating_sub(1)).max(now.plus(1));
        BlockContext { height, time }
    }

    /// The next block's transactions, those that protect first. `m.at` is the block's place already.
    pub(crate) fn block(&mut self, m: &Model) -> Vec<VerifiedTx> {
        let count = 1 + self.dice.below(6);
        let mut bodies = Vec::new();
        for _ in 0..count {
            self.transaction(m, &mut bodies);
        }
        if self.dice.chance(3) {
            bodies.extend(self.dice.pick(&self.old));
        }
        if let Some(kind) = self.flood.take() {
            bodies.extend(self.flood_of(m, kind));
        }
        self.old.extend(bodies.iter().cloned());
        self.sealed(bodies)
    }

    /// Seventeen of one kind by one author: one more than any list holds.
    fn flood_of(&mut self, m: &Model, kind: ActionKind) -> Vec<(Body, Vec<PublicKey>)> {
        let hospital = assent_genesis::institution_id("hospital-a");
        let person = persons(m)[0];
        let mut bodies = Vec::new();
        for n in 0..17 {
            let (author, action) = match kind {
                ActionKind::Revoke => {
                    let grant = GrantId(digest(&format!("flood {n}")));
                    (Author::Account(person), Action::Revoke(Revoke { grant }))
                }
                ActionKind::Propose => {
                    let (change, until) =
                        (Change::Parameters(m.parameters().clone()), m.at.time.plus(DAY_MS));
                    (Author::Institution(hospital), Action::Propose(Box::new(Propose { change, until })))
                }
                _ => {
                    let mut r = self.request_in_emergency(m).1;
                    let item = ItemId::of(1, 1);
                    (r.item, r.account, r.action) = (item, Some(person), UseAction::Read);
                    r.records = list(self.proofs(m, item, Some(person)));
                    (Author::Institution(hospital), Action::RequestAccess(Box::new(r)))
                }
            };
            bodies.extend(self.signed(m, author, action));
        }
        bodies
    }

    /// What shows which grants may be used: each is asked for by its grantee.
    pub(crate) fn probe(&mut self, m: &Model) -> Vec<VerifiedTx> {
        let mut bodies = Vec::new();
        for id in m.grants() {
            let g = m.grant_of(id).expect("it was just listed");
            let item = g.terms.items.first().copied().unwrap_or_else(|| self.item(m));
            let mut r = self.bare(m, item, Some(g.account));
            (r.grant, r.case, r.purpose, r.output) =
                (Some(id), g.terms.case, g.terms.purpose, g.terms.output);
            r.action = g.terms.actions[0];
            bodies.extend(self.signed(
                m,
                Author::Institution(g.terms.grantee),
                Action::RequestAccess(Box::new(r)),
            ));
        }
        self.sealed(bodies)
    }

    pub(crate) fn sealed(&self, mut bodies: Vec<(Body, Vec<PublicKey>)>) -> Vec<VerifiedTx> {
        bodies.sort_by_key(|(b, _)| !b.action.protects());
        self.world.seal(&bodies)
    }

    fn transaction(&mut self, m: &Model, bodies: &mut Vec<(Body, Vec<PublicKey>)>) {
        if !self.held.is_empty() && self.dice.chance(35) {
            bodies.push(self.held.remove(0));
            return;
        }
        let kind = self.kind();
        let Some((author, action)) = self.action(m, kind) else { return };
        let Some(tx) = self.signed(m, author, action) else { return };
        let twice =
            matches!(kind, ActionKind::RequestAccess | ActionKind::RegisterItem) && self.dice.chance(12);
        if kind == ActionKind::Grant && self.dice.chance(10) {
            // Withdrawn before it comes, by whoever.
            let id = body_id(&self.world.genesis, &tx.0.encode()).0;
            let by = if self.dice.chance(85) { author } else { Author::Account(self.person(m)) };
            bodies.extend(self.signed(m, by, Action::Revoke(Revoke { grant: GrantId(id) })));
            self.held.push(tx);
            return;
        }
        let again = (tx.0.author, tx.0.action.clone());
        bodies.push(tx);
        // The race: the same asked twice in one block.
        if twice {
            bodies.extend(self.signed(m, again.0, again.1));
        }
    }

    fn kind(&mut self) -> ActionKind {
        let all: u64 = self.weights.iter().map(|(_, w)| w).sum();
        let mut at = self.dice.below(all);
        for (kind, weight) in &self.weights {
            if at < *weight {
                return *kind;
            }
            at -= weight;
        }
        ActionKind::RequestAccess
    }

    /// Signed by whoever has to, or now and then by somebody else.
    pub(crate) fn signed(
        &mut self,
        m: &Model,
        author: Author,
        action: Action,
    ) -> Option<(Body, Vec<PublicKey>)> {
        let mut keys = vec![match author {
            Author::Account(id) => m.person(id)?.key,
            Author::Institution(id) => {
                self.operator_of(m, id).or_else(|| (id == newcomer()).then(|| operator(0).public()))?
            }
        }];
        if let Action::ReportEquivocation(_) = action
            && let Author::Institution(id) = author
            && let Some((_, key)) = self.world.voters.iter().find(|(i, _)| *i == id)
            && self.dice.chance(50)
        {
            keys = vec![key.public()];
        }
        match second(&action) {
            None => (),
            Some(Second::New(key)) => keys.push(key),
            Some(Second::Person(id)) => {
                keys.push(m.person(id).map_or_else(|| wallet(31).public(), |p| p.key))
            }
            Some(Second::Institution(id)) => {
                keys.push(self.operator_of(m, id).unwrap_or_else(|| operator(11).public()));
            }
        }
        let mut expires = m.at.time.plus(60_000 + self.dice.below(500_000));
        if self.dice.chance(self.wrongly) {
            match self.dice.below(5) {
                0 => keys[0] = wallet(self.dice.below(32)).public(),
                1 => keys.push(wallet(30).public()),
                2 => keys.truncate(1),
                3 => expires = TimeMs(m.at.time.0 - 1_000_000),
                _ => expires = m.at.time.plus(600_001 + self.dice.below(2)),
            }
            keys.truncate(2);
        }
        Some((self.world.body(author, action, expires), keys))
    }

    fn operator_of(&mut self, m: &Model, id: InstitutionId) -> Option<PublicKey> {
        let keys = m.institution(id)?.keys;
        let now = m.at.time;
        let good: Vec<_> =
            keys.iter().filter(|k| k.not_before <= now && now <= k.not_after).map(|k| k.key).collect();
        self.dice.pick(&good)
    }

    // Whom and what there is.

    fn person(&mut self, m: &Model) -> AccountId {
        if self.dice.chance(2) {
            return AccountId(digest("nobody"));
        }
        self.known_person(m)
    }

    fn known_person(&mut self, m: &Model) -> AccountId {
        self.dice.one(&persons(m))
    }

    fn institution(&mut self, m: &Model) -> InstitutionId {
        if self.dice.chance(3) {
            return newcomer();
        }
        self.dice.one(&m.institutions())
    }

    fn with_role(&mut self, m: &Model, roles: &[Role]) -> InstitutionId {
        let has =
            |i: &InstitutionId| m.institution(*i).is_some_and(|i| roles.iter().any(|r| i.roles.contains(r)));
        let fit: Vec<_> = m.institutions().into_iter().filter(has).collect();
        if self.dice.chance(88) && !fit.is_empty() {
            self.dice.one(&fit)
        } else {
            self.dice.one(&m.institutions())
        }
    }

    fn item(&mut self, m: &Model) -> ItemId {
        if self.dice.chance(2) { ItemId::of(99, 1) } else { self.dice.one(&m.items()) }
    }

    /// Short, or up to something long.
    fn span(&mut self, long: u64) -> u64 {
        let most = if self.dice.chance(30) { 100_000 } else { long };
        self.dice.below(most)
    }

    fn level(&mut self) -> Level {
        self.dice.one(Level::ALL)
    }

    fn some<T: Clone>(&mut self, of: &[T], most: u64) -> Vec<T> {
        let n = if of.is_empty() { 0 } else { self.dice.below(most + 1) };
        (0..n).map(|_| self.dice.one(of)).collect()
    }

    /// Records of a person, or of several, under an item.
    fn proofs(&mut self, m: &Model, item: ItemId, account: Option<AccountId>) -> Vec<RecordProof> {
        let mut all = Vec::new();
        for d in m.applied() {
            let Action::AnchorRecords(a) = &d.asked.action else { continue };
            let Some(records) = self.world.anchored.get(&a.root) else { continue };
            let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
            for (i, r) in records.iter().enumerate() {
                let fits = a.item == item && account.is_none_or(|p| p == r.account);
                if fits {
                    let path = list(merkle::path(&leaves, i));
                    let batch = BatchId(d.asked.body.0);
                    all.push(RecordProof { batch, record: r.clone(), index: i as u32, path });
                }
            }
        }
        if all.is_empty() {
            return match account {
                Some(_) => self.proofs(m, item, None),
                None => vec![RecordProof {
                    batch: BatchId(digest("no batch")),
                    record: self.record(m),
                    index: 0,
                    path: List::empty(),
                }],
            };
        }
        let n = 1 + self.dice.below(3);
        let mut some: Vec<RecordProof> = Vec::new();
        for _ in 0..n {
            let one = self.dice.one(&all);
            if !some.contains(&one) || self.dice.chance(3) {
                some.push(one);
            }
        }
        some
    }

    fn record(&mut self, m: &Model) -> Record {
        let account = self.known_person(m);
        let commitment = Commitment(digest(&format!("content {}", self.dice.below(40))));
        Record { account, commitment, day: Day(99 + self.dice.below(6) as u32) }
    }

    // What is asked.

    fn action(&mut self, m: &Model, kind: ActionKind) -> Option<(Author, Action)> {
        let institution = Author::Institution;
        Some(match kind {
            ActionKind::Enrol => {
                let custodian =
                    if self.dice.chance(90) { self.with_role(m, &[Role::Hospital]) } else { newcomer() };
                let key = wallet(self.dice.below(30)).public();
                let enrol = Enrol { custodian, algorithm: Algorithm::Ed25519, key };
                (institution(self.with_role(m, &[Role::Bureau])), Action::Enrol(enrol))
            }
            ActionKind::RegisterItem => self.register(m),
            ActionKind::Classify => self.classify(m),
            ActionKind::AnchorRecords => self.anchor(m)?,
            ActionKind::Grant => self.grant(m),
            ActionKind::Revoke => {
                let used =
                    |g: &GrantId| m.grant_of(*g).is_some_and(|g| g.delivered > 0 && g.revoked.is_none());
                let used: Vec<_> = m.grants().into_iter().filter(used).collect();
                let used = self.dice.pick(&used).filter(|_| self.dice.chance(50));
                let grant = used.or_else(|| self.grant_id(m))?;
                let known =
                    m.grant_of(grant).map(|g| if self.dice.chance(70) { g.account } else { g.signer });
                let by = known.filter(|_| self.dice.chance(85)).unwrap_or_else(|| self.known_person(m));
                (Author::Account(by), Action::Revoke(Revoke { grant }))
            }
            ActionKind::RequestAccess => {
                let (by, r) = self.request(m);
                (institution(by), Action::RequestAccess(Box::new(r)))
            }
            ActionKind::Deliver => self.deliver(m)?,
            ActionKind::NotDelivered => {
                let p = self.permit(m, |p| p.delivered.is_none() && !p.undelivered)?;
                let by = if self.dice.chance(92) { p.custodian } else { self.dice.one(&m.institutions()) };
                let permit = if self.dice.chance(97) { p.id } else { PermitId(digest("no permit")) };
                (institution(by), Action::NotDelivered(NotDelivered { permit }))
            }
            ActionKind::AttestErasure => self.attest(m)?,
            ActionKind::RecordActivity => self.activity(m)?,
            ActionKind::ReviewOpening => {
                let by = self.with_role(m, &[Role::Regulator]);
                let until = m.at.time.plus(self.dice.below(2 * DAY_MS));
                let (item, requester) = (self.item(m), self.institution(m));
                let purpose = self.dice.one(&[Purpose::Research, Purpose::Statistics, Purpose::Treatment]);
                (institution(by), Action::ReviewOpening(ReviewOpening { item, requester, purpose, until }))
            }
            ActionKind::Propose => self.propose(m)?,
            ActionKind::Approve => self.approve(m)?,
            ActionKind::ReportEquivocation => {
                let (_, key) = self.dice.one(&self.world.voters.clone());
                let key = if self.dice.chance(85) { key } else { consensus(self.dice.below(8)) };
                let height = Height(1 + self.dice.below(m.at.height.0));
                let report = contradiction(&self.world.genesis, &key, height, self.dice.below(2) as u32);
                let by = self.institution(m);
                (institution(by), Action::ReportEquivocation(Box::new(report)))
            }
            ActionKind::RotateKey => {
                let key = wallet(self.dice.below(30)).public();
                let rotate = RotateKey { algorithm: Algorithm::Ed25519, key };
                (Author::Account(self.known_person(m)), Action::RotateKey(rotate))
            }
            ActionKind::Recover => self.recover(m),
            ActionKind::VetoRecovery => {
                let account = self.challenged_person(m);
                let key = m.person(account)?.recovery.map(|r| r.key).filter(|_| self.dice.chance(90));
                let key = key.unwrap_or_else(|| wallet(self.dice.below(30)).public());
                (Author::Account(account), Action::VetoRecovery(VetoRecovery { key }))
            }
            ActionKind::Delegate => self.delegate(m)?,
            ActionKind::EndDelegation => self.end_delegation(m)?,
            ActionKind::Ratify => {
                let by_delegate: Vec<_> = m
                    .grants()
                    .into_iter()
                    .filter(|g| m.grant_of(*g).is_some_and(|g| g.terms.delegation.is_some()))
                    .collect();
                let grant = self
                    .dice
                    .pick(&by_delegate)
                    .filter(|_| self.dice.chance(92))
                    .or_else(|| self.grant_id(m))?;
                let ward = m.grant_of(grant).map(|g| g.account).filter(|_| self.dice.chance(90));
                let by = ward.unwrap_or_else(|| self.known_person(m));
                (Author::Account(by), Action::Ratify(Ratify { grant }))
            }
            ActionKind::RotateOperator => self.rotate_operator(m),
            ActionKind::AnchorEmergency => self.anchor_emergency(m)?,
            ActionKind::ReviewEmergency => {
                let p = self.permit(m, |p| p.request.emergency.is_some())?;
                let verdict = self.dice.one(Verdict::ALL);
                let by = self.with_role(m, &[Role::Regulator]);
                (institution(by), Action::ReviewEmergency(ReviewEmergency { permit: p.id, verdict }))
            }
            ActionKind::NotifyPerson => {
                let p = self.permit(m, |p| p.request.emergency.is_some() || p.request.order.is_some())?;
                let by =
                    if self.dice.chance(92) { p.request.requester } else { self.dice.one(&m.institutions()) };
                let permit = if self.dice.chance(97) { p.id } else { PermitId(digest("no permit")) };
                (institution(by), Action::NotifyPerson(NotifyPerson { permit, notice: digest("told") }))
            }
            ActionKind::IssueOrder => self.order(m),
        })
    }

    fn register(&mut self, m: &Model) -> (Author, Action) {
        let category = self.dice.one(Category::ALL);
        let roles: &[Role] =
            if category == Category::Settlement { &[Role::Bureau] } else { &[Role::Hospital, Role::Bureau] };
        let by = self.with_role(m, roles);
        let (level, opening, recipients) = self.grading(m, by);
        let code = 1 + self.dice.below(14) as u32;
        let item = RegisterItem { code, scope: 1, category, level, opening, recipients };
        (Author::Institution(by), Action::RegisterItem(item))
    }

    /// A level with an opening that mostly fits.
    fn grading(&mut self, m: &Model, custodian: InstitutionId) -> (Level, Opening, List<InstitutionId, 16>) {
        let level = self.level();
        let fits: &[Opening] = match level {
            Level::High => &[Opening::Prohibited],
            Level::Moderate | Level::Low => {
                &[Opening::Prohibited, Opening::AfterReview, Opening::RealName, Opening::Directed]
            }
            Level::None => Opening::ALL,
        };
        let opening = if self.dice.chance(88) { self.dice.one(fits) } else { self.dice.one(Opening::ALL) };
        let mut recipients = vec![];
        if (opening == Opening::Directed) == self.dice.chance(94) {
            recipients = (0..1 + self.dice.below(2)).map(|_| self.institution(m)).collect();
            if self.dice.chance(90) {
                recipients.retain(|r| *r != custodian);
            }
        }
        (level, opening, list(recipients))
    }

    fn classify(&mut self, m: &Model) -> (Author, Action) {
        let item = self.item(m);
        let custodian = m.item(item).map(|i| i.custodian);
        let by =
            custodian.filter(|_| self.dice.chance(90)).unwrap_or_else(|| self.dice.one(&m.institutions()));
        let (mut level, opening, recipients) = self.grading(m, by);
        if let Some(i) = m.item(item)
            && self.dice.chance(50)
        {
            level = i.level;
        }
        (Author::Institution(by), Action::Classify(Classify { item, level, opening, recipients }))
    }

    fn anchor(&mut self, m: &Model) -> Option<(Author, Action)> {
        let item = self.item(m);
        let of = m.item(item);
        let custodian = of.as_ref().map(|i| i.custodian).filter(|_| self.dice.chance(93));
        let by = custodian.unwrap_or_else(|| self.dice.one(&m.institutions()));
        let records: Vec<_> = (0..1 + self.dice.below(4)).map(|_| self.record(m)).collect();
        let settles = of.is_some_and(|i| i.category == Category::Settlement) || self.dice.chance(5);
        let cases: Vec<_> = (0..4).map(case).collect();
        let settles = if settles { self.some(&cases, 2) } else { vec![] };
        let anchor = assent_ledger::testing::anchor_of(item, &records, &settles);
        self.world.anchored.insert(anchor.root, records);
        Some((Author::Institution(by), Action::AnchorRecords(anchor)))
    }

    pub(crate) fn grant(&mut self, m: &Model) -> (Author, Action) {
        let mut signer = self.known_person(m);
        let mut account = signer;
        let mut delegation = None;
        let mut capacity = Capacity::Own;
        let mut purposes = vec![
            Purpose::ClaimsPayment,
            Purpose::Treatment,
            Purpose::Treatment,
            Purpose::Research,
            Purpose::Statistics,
            Purpose::Operations,
            Purpose::Marketing,
            Purpose::EmergencyTreatment,
        ];
        if let Some(id) = self.dice.pick(&m.delegations()).filter(|_| self.dice.chance(45))
            && let Some(d) = m.delegation(id)
        {
            (signer, account, delegation, capacity) = (d.delegate, d.ward, Some(id), d.capacity);
            if self.dice.chance(88) {
                purposes = d.purposes.to_vec();
            }
        }
        let custodian = m.person(account).map(|p| p.custodian);
        let own: Vec<_> =
            m.items().into_iter().filter(|i| m.item(*i).map(|i| i.custodian) == custodian).collect();
        let item = self.dice.pick(&own).unwrap_or_else(|| ItemId::of(1, 1));
        let now = m.at.time;
        let purpose = self.dice.one(&purposes);
        let mode = self.dice.one(Mode::ALL);
        let uses = match mode {
            Mode::OneTime => 1,
            Mode::NTimes => 1 + self.dice.below(3) as u32,
            Mode::Standing => 0,
        };
        let bound = mode == Mode::OneTime || purpose == Purpose::ClaimsPayment || self.dice.chance(20);
        let level = m.item(item).map_or(Level::High, |i| i.level);
        let mut terms = Grant {
            grantee: self.dice.one(&m.institutions()),
            capacity,
            items: list(if self.dice.chance(85) { vec![item] } else { vec![] }),
            categories: list(if self.dice.chance(25) { vec![self.dice.one(Category::ALL)] } else { vec![] }),
            data_from: Day(100 - self.dice.below(2) as u32),
            data_to: Day(104 + self.dice.below(2) as u32),
            case: bound.then(|| case(self.dice.below(3))),
            purpose,
            actions: list(if self.dice.chance(60) {
                UseAction::ALL.to_vec()
            } else {
                vec![self.dice.one(UseAction::ALL)]
            }),
            output: if self.dice.chance(60) { Output::Raw } else { self.dice.one(Output::ALL) },
            max_level: if self.dice.chance(75) { level } else { self.level() },
            mode,
            uses,
            not_before: if self.dice.chance(80) { TimeMs(0) } else { now.plus(self.dice.below(60_000)) },
            not_after: now.plus(60_001 + self.span(30 * DAY_MS)),
            retention_days: 30,
            onward: false,
            jurisdictions: list(if self.dice.chance(85) { vec![156, 344] } else { vec![156] }),
            legal_basis: LegalBasis::Consent,
            notice: digest("notice"),
            language: Language::Chinese,
            policy_version: m.policy().version,
            delegation,
        };
        if self.dice.chance(12) {
            self.spoil_grant(m, &mut terms);
        }
        (Author::Account(signer), Action::Grant(Box::new(terms)))
    }

    fn spoil_grant(&mut self, m: &Model, t: &mut Grant) {
        match self.dice.below(14) {
            0 => t.uses += 1,
            1 => t.case = None,
            2 => t.actions = list(vec![]),
            3 => (t.items, t.categories) = (list(vec![]), list(vec![])),
            4 => t.jurisdictions = list(vec![]),
            5 => t.data_to = Day(99),
            6 => t.not_after = TimeMs(m.at.time.0 + self.dice.below(2)),
            7 => t.not_before = t.not_after.plus(1),
            8 => t.policy_version += 1,
            9 => t.policy_version = t.policy_version.saturating_sub(1).max(1),
            10 => t.grantee = newcomer(),
            11 => t.capacity = self.dice.one(Capacity::ALL),
            12 => t.delegation = Some(DelegationId(digest("no delegation"))),
            _ => t.delegation = self.dice.pick(&m.delegations()),
        }
    }

    fn grant_id(&mut self, m: &Model) -> Option<GrantId> {
        if self.dice.chance(3) {
            return Some(GrantId(digest(&format!("no grant {}", self.dice.below(20)))));
        }
        let all = m.grants();
        if self.dice.chance(70) {
            // Rather a recent one.
            return self.dice.pick(&all[all.len().saturating_sub(4)..]);
        }
        self.dice.pick(&all)
    }

    fn request(&mut self, m: &Model) -> (InstitutionId, RequestAccess) {
        let (mut by, mut r) = match self.dice.below(100) {
            0..50 => self.request_by_grant(m),
            50..68 => self.request_by_opening(m),
            68..84 => self.request_in_emergency(m),
            _ => self.request_by_order(m),
        };
        if self.dice.chance(30) {
            self.spoil_request(m, &mut by, &mut r);
        }
        (by, r)
    }

    fn bare(&mut self, m: &Model, item: ItemId, account: Option<AccountId>) -> RequestAccess {
        RequestAccess {
            grant: None,
            item,
            account,
            case: self.dice.chance(60).then(|| case(self.dice.below(3))),
            purpose: self.dice.one(&[Purpose::Treatment, Purpose::Research, Purpose::Statistics]),
            action: self.dice.one(UseAction::ALL),
            output: self.dice.one(Output::ALL),
            records: list(self.proofs(m, item, account)),
            staff: Commitment(digest("staff")),
            person: None,
            emergency: None,
            order: None,
        }
    }

    pub(crate) fn request_by_grant(&mut self, m: &Model) -> (InstitutionId, RequestAccess) {
        let Some((id, g)) = self.grant_id(m).and_then(|id| Some((id, m.grant_of(id)?))) else {
            return self.request_by_opening(m);
        };
        let item = self.dice.pick(&g.terms.items).unwrap_or_else(|| self.item(m));
        let account = self.dice.chance(75).then_some(g.account);
        let mut r = self.bare(m, item, Some(g.account));
        r.grant = Some(id);
        r.account = account;
        r.case = g.terms.case.or(r.case);
        r.purpose = g.terms.purpose;
        r.action = self.dice.pick(&g.terms.actions).unwrap_or(r.action);
        r.output = self.dice.one(&[g.terms.output, Output::ResultOnly]);
        (g.terms.grantee, r)
    }

    fn request_by_opening(&mut self, m: &Model) -> (InstitutionId, RequestAccess) {
        let open: Vec<_> = m
            .items()
            .into_iter()
            .filter(|i| m.item(*i).is_some_and(|i| i.opening != Opening::Prohibited))
            .collect();
        let item = self.dice.pick(&open).filter(|_| self.dice.chance(85)).unwrap_or_else(|| self.item(m));
        let account = self.dice.chance(30).then(|| self.known_person(m));
        let mut r = self.bare(m, item, account);
        let mut by = self.dice.one(&m.institutions());
        if let Some(i) = m.item(item) {
            match i.opening {
                Opening::Directed if self.dice.chance(80) => by = self.dice.pick(&i.recipients).unwrap_or(by),
                Opening::RealName if self.dice.chance(80) => r.person = Some(self.known_person(m)),
                Opening::AfterReview if self.dice.chance(80) => {
                    let reviewed = m.applied().filter_map(|d| match &d.asked.action {
                        Action::ReviewOpening(x) if x.item == item => Some((x.requester, x.purpose)),
                        _ => None,
                    });
                    if let Some((requester, purpose)) = self.dice.pick(&reviewed.collect::<Vec<_>>()) {
                        (by, r.purpose) = (requester, purpose);
                    }
                }
                _ => (),
            }
        }
        (by, r)
    }

    fn request_in_emergency(&mut self, m: &Model) -> (InstitutionId, RequestAccess) {
        let account = self.known_person(m);
        let item = self.item_of(m, account);
        let mut r = self.bare(m, item, Some(account));
        r.purpose = Purpose::EmergencyTreatment;
        r.action = self.dice.one(&[UseAction::Read, UseAction::Read, UseAction::Compute]);
        r.emergency = Some(self.dice.one(EmergencyReason::ALL));
        (self.rostered(m), r)
    }

    fn rostered(&mut self, m: &Model) -> InstitutionId {
        let on = |i: &InstitutionId| m.institution(*i).is_some_and(|i| i.rostered_until.is_some());
        let all: Vec<_> = m.institutions().into_iter().filter(on).collect();
        if self.dice.chance(92) { self.dice.one(&all) } else { self.dice.one(&m.institutions()) }
    }

    fn item_of(&mut self, m: &Model, account: AccountId) -> ItemId {
        let custodian = m.person(account).map(|p| p.custodian);
        let own: Vec<_> =
            m.items().into_iter().filter(|i| m.item(*i).map(|i| i.custodian) == custodian).collect();
        self.dice.pick(&own).unwrap_or_else(|| self.item(m))
    }

    fn request_by_order(&mut self, m: &Model) -> (InstitutionId, RequestAccess) {
        let Some((id, o)) = self.dice.pick(&m.orders()).and_then(|id| Some((id, m.order(id)?.clone())))
        else {
            return self.request_by_grant(m);
        };
        let account = o.account.or_else(|| self.dice.chance(60).then(|| self.known_person(m)));
        let item = self.dice.pick(&o.items).unwrap_or_else(|| self.item(m));
        let mut r = self.bare(m, item, account);
        r.order = Some(id);
        r.purpose = Purpose::Legal;
        r.action = self.dice.pick(&o.actions).unwrap_or(r.action);
        r.output = self.dice.one(&[o.output, Output::ResultOnly]);
        (o.beneficiary, r)
    }

    fn spoil_request(&mut self, m: &Model, by: &mut InstitutionId, r: &mut RequestAccess) {
        match self.dice.below(18) {
            0 | 1 => *by = self.dice.one(&m.institutions()),
            2 => r.item = self.item(m),
            3 => r.account = Some(self.person(m)),
            4 => r.account = None,
            5 => r.case = None,
            6 => r.case = Some(case(self.dice.below(4))),
            7 | 8 => r.purpose = self.dice.one(Purpose::ALL),
            9 => r.action = self.dice.one(UseAction::ALL),
            10 => r.output = self.dice.one(Output::ALL),
            11 => r.emergency = Some(EmergencyReason::AcuteThreat),
            12 => r.grant = self.grant_id(m),
            13 => r.order = self.dice.pick(&m.orders()).or(Some(OrderId(digest("no order")))),
            14 => {
                let mut records = r.records.to_vec();
                let first = &mut records[0];
                match self.dice.below(4) {
                    0 => first.record.day = Day(first.record.day.0 + 1),
                    1 => first.index += 1,
                    2 => first.record.account = self.known_person(m),
                    _ => first.batch = BatchId(digest("no batch")),
                }
                r.records = list(records);
            }
            15 => {
                let mut records = r.records.to_vec();
                records.push(records[0].clone());
                r.records = list(records);
            }
            16 => r.person = Some(self.known_person(m)),
            _ => r.order = Some(OrderId(digest("no order"))),
        }
    }

    fn permit(&mut self, m: &Model, fits: impl Fn(&Permitted) -> bool) -> Option<Permitted> {
        let mut all: Vec<_> = m.permits().collect();
        if self.dice.chance(88) && all.iter().any(&fits) {
            all.retain(fits);
        }
        let i = self.dice.below(all.len() as u64) as usize;
        if all.is_empty() { None } else { Some(all.swap_remove(i)) }
    }

    fn deliver(&mut self, m: &Model) -> Option<(Author, Action)> {
        let p = self.permit(m, |p| p.delivered.is_none() && !p.undelivered)?;
        let (from, below) = (p.height.0, m.at.height.0);
        let by = if self.dice.chance(94) { p.custodian } else { self.dice.one(&m.institutions()) };
        let mut released = Height(from + self.dice.below(below.saturating_sub(from)));
        let mut d = Deliver {
            permit: p.id,
            released_height: Height(0),
            manifest: p.request.manifest(),
            records: p.request.records.len() as u32,
            package: digest("package"),
        };
        if self.dice.chance(10) {
            match self.dice.below(5) {
                0 => released = Height(below),
                1 => released = Height(from.saturating_sub(1)),
                2 => d.manifest = digest("other"),
                3 => d.records += 1,
                _ => d.permit = PermitId(digest("no permit")),
            }
        }
        d.released_height = released;
        Some((Author::Institution(by), Action::Deliver(d)))
    }

    fn attest(&mut self, m: &Model) -> Option<(Author, Action)> {
        let due: Vec<_> = m.grants().into_iter().filter(|g| m.erasure_due(*g).is_some()).collect();
        let grant = self.dice.pick(&due).filter(|_| self.dice.chance(92)).or_else(|| self.grant_id(m))?;
        let grantee = m.grant_of(grant).map(|g| g.terms.grantee).filter(|_| self.dice.chance(94));
        let by = grantee.unwrap_or_else(|| self.dice.one(&m.institutions()));
        let until = m.at.time.plus(self.dice.below(20 * DAY_MS));
        let until = if self.dice.chance(10) { m.at.time } else { until };
        let hold = self.dice.chance(40).then_some(Hold { reason: HoldReason::Litigation, until });
        let attest = AttestErasure { grant, report: digest("report"), hold };
        Some((Author::Institution(by), Action::AttestErasure(attest)))
    }

    fn activity(&mut self, m: &Model) -> Option<(Author, Action)> {
        let makers: Vec<_> =
            m.permits().filter(|p| p.delivered.is_some()).map(|p| p.request.requester).collect();
        let by = self.dice.pick(&makers).unwrap_or_else(|| self.dice.one(&m.institutions()));
        let kind = self.dice.one(ActivityKind::ALL);
        let fits = |p: &Permitted| {
            let made = matches!(p.request.action, UseAction::Compute | UseAction::Derive);
            let act =
                if kind == ActivityKind::Reuse { p.request.action != UseAction::Disclose } else { made };
            p.request.requester == by && p.delivered.is_some() && act
        };
        let good: Vec<_> = m.permits().filter(fits).map(|p| p.id).collect();
        let mut permits = self.some(&good, 2);
        let own: Vec<_> =
            m.artifacts().into_iter().filter(|a| m.artifact(*a).is_some_and(|a| a.agent == by)).collect();
        let mut artifacts = self.some(&own, 1);
        if self.dice.chance(85) {
            permits.sort();
            permits.dedup();
        }
        if permits.is_empty() && artifacts.is_empty() || self.dice.chance(12) {
            permits.extend(self.permit(m, |_| true).map(|p| p.id));
            artifacts.extend(self.dice.pick(&m.artifacts()).filter(|_| self.dice.chance(50)));
        }
        if self.dice.chance(4) {
            permits.push(PermitId(digest("no permit")));
        }
        if permits.is_empty() && artifacts.is_empty() {
            artifacts.push(artifact(self.dice.below(12)));
        }
        let product = |dice: &mut Dice| Product {
            id: artifact(dice.below(12)),
            level: if dice.chance(75) { Level::High } else { dice.one(Level::ALL) },
        };
        let outputs: Vec<_> = (0..1 + self.dice.below(2)).map(|_| product(&mut self.dice)).collect();
        let a = RecordActivity {
            kind,
            permits: list(permits),
            artifacts: list(artifacts),
            outputs: list(outputs),
            plan: digest("plan"),
            excluded: list(self.some(&[BodyId(digest("x")), BodyId(digest("y"))], 2)),
        };
        Some((Author::Institution(by), Action::RecordActivity(Box::new(a))))
    }

    fn challenged_person(&mut self, m: &Model) -> AccountId {
        let all: Vec<_> =
            persons(m).into_iter().filter(|p| m.person(*p).is_some_and(|p| p.challenged())).collect();
        self.dice.pick(&all).filter(|_| self.dice.chance(85)).unwrap_or_else(|| self.known_person(m))
    }

    fn recover(&mut self, m: &Model) -> (Author, Action) {
        let account = if self.dice.chance(70) { self.challenged_person(m) } else { self.person(m) };
        let person = m.person(account);
        let pending = person.as_ref().and_then(|p| p.recovery.as_ref()).map(|r| r.key);
        let key = pending.filter(|_| self.dice.chance(88));
        let key = key.unwrap_or_else(|| wallet(self.dice.below(30)).public());
        let frozen = person.as_ref().is_some_and(|p| p.frozen);
        let in_person = frozen != self.dice.chance(6);
        let enroller = person.map(|p| p.enroller).filter(|_| self.dice.chance(35));
        let by = enroller.unwrap_or_else(|| self.with_role(m, &[Role::Bureau, Role::Hospital]));
        let recover = Recover { account, algorithm: Algorithm::Ed25519, key, in_person };
        (Author::Institution(by), Action::Recover(recover))
    }

    fn delegate(&mut self, m: &Model) -> Option<(Author, Action)> {
        let (ward, delegate) = (self.known_person(m), self.person(m));
        let capacity = if self.dice.chance(96) {
            self.dice.one(&[Capacity::Guardian, Capacity::Proxy])
        } else {
            Capacity::Own
        };
        let person = m.person(ward)?;
        let by = match self.dice.below(100) {
            0..45 => person.enroller,
            45..75 => person.custodian,
            75..92 => self.with_role(m, &[Role::Court]),
            _ => self.dice.one(&m.institutions()),
        };
        let (this, _) = quarter_of(m.at.time);
        let ahead = self.dice.one(&[1, 1, 1, 2, 3, 40, 100]);
        let mut until = quarter_start(this + ahead);
        if self.dice.chance(8) {
            until = self.dice.one(&[
                until.plus(1),
                TimeMs(until.0 - 1),
                quarter_start(this),
                quarter_start(this + 101),
            ]);
        }
        let mut purposes = self.some(&[Purpose::Treatment, Purpose::Research, Purpose::ClaimsPayment], 3);
        if self.dice.chance(94) {
            purposes.push(Purpose::Treatment);
            purposes.sort_by_key(|p| *p as u8);
            purposes.dedup();
        }
        let d = Delegate {
            ward,
            delegate,
            capacity,
            document: digest("document"),
            purposes: list(purposes),
            until,
        };
        Some((Author::Institution(by), Action::Delegate(d)))
    }

    fn end_delegation(&mut self, m: &Model) -> Option<(Author, Action)> {
        if self.dice.chance(4) {
            let delegation = DelegationId(digest("no delegation"));
            let by = Author::Account(self.known_person(m));
            return Some((
                by,
                Action::EndDelegation(EndDelegation { delegation, cause: DelegationEnd::Revoked }),
            ));
        }
        let delegation = self.dice.pick(&m.delegations())?;
        let d = m.delegation(delegation)?;
        let (by, cause) = match self.dice.below(5) {
            0 => (Author::Account(d.ward), DelegationEnd::Revoked),
            1 => (Author::Account(d.delegate), DelegationEnd::Revoked),
            2 => (Author::Institution(d.issuer), DelegationEnd::Death),
            3 => (Author::Institution(self.with_role(m, &[Role::Court])), DelegationEnd::Court),
            _ => (Author::Account(self.known_person(m)), self.dice.one(DelegationEnd::ALL)),
        };
        let cause = if self.dice.chance(92) { cause } else { self.dice.one(DelegationEnd::ALL) };
        Some((by, Action::EndDelegation(EndDelegation { delegation, cause })))
    }

    fn rotate_operator(&mut self, m: &Model) -> (Author, Action) {
        let by = self.dice.one(&m.institutions());
        let keys: Vec<_> =
            m.institution(by).map(|i| i.keys.iter().map(|k| k.key).collect()).unwrap_or_default();
        let now = m.at.time;
        let add = self.dice.chance(75).then(|| OperatorKey {
            algorithm: Algorithm::Ed25519,
            key: operator(self.dice.below(10)).public(),
            not_before: if self.dice.chance(85) { TimeMs(0) } else { now.plus(self.dice.below(3)) },
            not_after: if self.dice.chance(85) {
                now.plus(900 * DAY_MS)
            } else {
                TimeMs(now.0 + 1 - self.dice.below(3))
            },
        });
        let retire = self.dice.chance(35).then(|| self.dice.pick(&keys)).flatten();
        let retire = retire.or_else(|| self.dice.chance(3).then(|| operator(11).public()));
        (Author::Institution(by), Action::RotateOperator(RotateOperator { add, retire }))
    }

    fn anchor_emergency(&mut self, m: &Model) -> Option<(Author, Action)> {
        let account = if self.dice.chance(97) { self.known_person(m) } else { AccountId(digest("nobody")) };
        let item = if self.dice.chance(92) { self.item_of(m, account) } else { self.item(m) };
        let custodian = m.item(item).map(|i| i.custodian).filter(|_| self.dice.chance(94));
        let by = custodian.unwrap_or_else(|| self.dice.one(&m.institutions()));
        let now = m.at.time.0;
        let limit = m.parameters().emergency_anchor_ms;
        let ago = match self.dice.below(10) {
            0..6 => self.dice.below(limit),
            6 => limit,
            7 => limit + 1,
            8 => self.dice.below(3 * limit),
            _ => 0,
        };
        let before = m.applied().filter_map(|d| match &d.asked.action {
            Action::AnchorEmergency(a) => Some((d.asked.author, a.clone())),
            _ => None,
        });
        if let Some((by, again)) =
            self.dice.pick(&before.collect::<Vec<_>>()).filter(|_| self.dice.chance(25))
        {
            return Some((by, Action::AnchorEmergency(again)));
        }
        let ahead = u64::from(self.dice.chance(5));
        let a = AnchorEmergency {
            requester: self.rostered(m),
            item,
            account,
            reason: self.dice.one(EmergencyReason::ALL),
            action: if self.dice.chance(92) { UseAction::Read } else { self.dice.one(UseAction::ALL) },
            output: self.dice.one(Output::ALL),
            records: list(self.proofs(m, item, Some(account))),
            staff: Commitment(digest("staff")),
            released_at: TimeMs(now - ago.min(now) + ahead * (ago + 1)),
            package: digest("package"),
        };
        Some((Author::Institution(by), Action::AnchorEmergency(Box::new(a))))
    }

    fn order(&mut self, m: &Model) -> (Author, Action) {
        let by = self.with_role(m, &[Role::Court, Role::Regulator]);
        let account = self.dice.chance(60).then(|| self.person(m));
        let items = match account {
            Some(a) => self.item_of(m, a),
            None => self.item(m),
        };
        let now = m.at.time;
        let mut o = IssueOrder {
            basis: OrderBasis::Court,
            document: digest("order"),
            beneficiary: self.institution(m),
            cosigner: self.institution(m),
            account,
            items: list(if self.dice.chance(85) { vec![items] } else { vec![] }),
            categories: list(if self.dice.chance(25) { vec![self.dice.one(Category::ALL)] } else { vec![] }),
            data_from: Day(100 - self.dice.below(2) as u32),
            data_to: Day(104),
            actions: list(if self.dice.chance(70) { UseAction::ALL.to_vec() } else { vec![UseAction::Read] }),
            output: self.dice.one(Output::ALL),
            max_level: if self.dice.chance(75) { Level::High } else { self.level() },
            not_after: now.plus(1 + self.span(20 * DAY_MS)),
            notice_from: if self.dice.chance(40) {
                TimeMs(0)
            } else {
                now.plus(self.dice.below(10 * DAY_MS))
            },
        };
        if self.dice.chance(8) {
            match self.dice.below(4) {
                0 => o.actions = list(vec![]),
                1 => o.data_to = Day(98),
                2 => o.not_after = now,
                _ => (o.items, o.categories) = (list(vec![]), list(vec![])),
            }
        }
        (Author::Institution(by), Action::IssueOrder(Box::new(o)))
    }

    // What several decide.

    fn propose(&mut self, m: &Model) -> Option<(Author, Action)> {
        let change = self.change(m)?;
        let by = match &change {
            Change::Grading(c) if self.dice.chance(60) => m.item(c.item).map(|i| i.custodian),
            Change::Grading(_) | Change::Policy(_) => {
                Some(self.with_role(m, &[Role::Regulator, Role::Hospital]))
            }
            _ => self.dice.pick(&self.voters(m)),
        };
        let by = by.filter(|_| self.dice.chance(94)).unwrap_or_else(|| self.dice.one(&m.institutions()));
        let mut until = m.at.time.plus(30_000 + self.dice.below(DAY_MS));
        if self.dice.chance(6) {
            let month = 30 * DAY_MS;
            until = self.dice.one(&[
                m.at.time,
                TimeMs(m.at.time.0 - 1),
                m.at.time.plus(month),
                m.at.time.plus(month + 1),
            ]);
        }
        Some((Author::Institution(by), Action::Propose(Box::new(Propose { change, until }))))
    }

    fn voters(&self, m: &Model) -> Vec<InstitutionId> {
        m.set_at(m.at.height).validators.iter().map(|v| v.institution).collect()
    }

    fn approve(&mut self, m: &Model) -> Option<(Author, Action)> {
        let all: Vec<_> = m.proposals();
        let open =
            |p: &ProposalId| m.proposal(*p).is_some_and(|p| p.enacted.is_none() && p.until >= m.at.time);
        let open: Vec<_> = all.iter().copied().filter(open).collect();
        let proposal =
            self.dice.pick(&open).filter(|_| self.dice.chance(94)).or_else(|| self.dice.pick(&all));
        let proposal = proposal.unwrap_or(ProposalId(digest("no proposal")));
        let by = match m.proposal(proposal) {
            Some(p) if self.dice.chance(92) => {
                let fit = match &p.change {
                    Change::Policy(_) => {
                        [Role::Regulator, Role::Hospital].map(|r| self.with_role(m, &[r])).to_vec()
                    }
                    Change::Grading(c) => {
                        let source = m.item(c.item).map(|i| i.custodian);
                        source
                            .into_iter()
                            .chain([self.with_role(m, &[Role::Regulator, Role::Hospital])])
                            .collect()
                    }
                    _ => self.voters(m),
                };
                let fresh: Vec<_> = fit.iter().copied().filter(|i| !p.approvals.contains(i)).collect();
                self.dice.pick(&fresh).unwrap_or_else(|| self.dice.one(&m.institutions()))
            }
            _ => self.dice.one(&m.institutions()),
        };
        Some((Author::Institution(by), Action::Approve(Approve { proposal })))
    }

    fn change(&mut self, m: &Model) -> Option<Change> {
        Some(match self.dice.below(8) {
            7 => {
                let now = m.version_at(m.at.height);
                let version = if self.dice.chance(85) { now + 1 } else { self.dice.below(4) as u32 };
                let ahead = if self.dice.chance(80) {
                    3 + self.dice.below(2)
                } else {
                    self.dice.one(&[1, 2, 1_000_001])
                };
                Change::Protocol(ChangeProtocol { version, from: Height(m.at.height.0 + ahead) })
            }
            0 => Change::Validators(self.validators(m)),
            1 => Change::Nodes(self.nodes(m)),
            2 => Change::Parameters(self.parameters(m)),
            3 | 4 => Change::Institution(Box::new(self.institution_change(m)?)),
            5 => Change::Policy(self.policy(m)),
            _ => {
                let item = self.item(m);
                let before = m.item(item);
                let custodian = before.as_ref().map_or_else(newcomer, |i| i.custodian);
                let (mut level, mut opening, mut recipients) = self.grading(m, custodian);
                let lower =
                    before.and_then(|i| Level::ALL.iter().copied().rfind(|l| (*l as u8) < (i.level as u8)));
                if let Some(l) = lower.filter(|_| self.dice.chance(80)) {
                    (level, opening, recipients) = (l, Opening::Prohibited, List::empty());
                }
                Change::Grading(Classify { item, level, opening, recipients })
            }
        })
    }

    fn parameters(&mut self, m: &Model) -> Parameters {
        let mut p = m.parameters().clone();
        match self.dice.below(8) {
            0 => p.recovery_approvals = 1 + self.dice.below(3) as u32,
            1 => p.permit_life_ms = self.dice.one(&[60_000, 3_600_000, DAY_MS]),
            2 => p.erasure_deadline_ms = self.dice.one(&[DAY_MS, 15 * DAY_MS]),
            3 => p.equivocation = self.dice.one(Consequence::ALL),
            4 => p.emergency_notice_ms = self.dice.one(&[60_000, 2 * DAY_MS]),
            5 => p.recovery_delay_ms = self.dice.one(&[60_000, 3 * DAY_MS]),
            6 => p.heartbeat_ms = 0,
            _ => p.emergency_permit_life_ms = self.dice.one(&[60_000, 3_600_000]),
        }
        p
    }

    fn policy(&mut self, m: &Model) -> Policy {
        let mut p = m.policy().clone();
        p.version += 1;
        let mut rules = p.rules.to_vec();
        let i = self.dice.below(rules.len() as u64) as usize;
        match self.dice.below(8) {
            0 if rules.len() > 1 => drop(rules.remove(i)),
            1 => rules[i].max_level = self.level(),
            2 => rules[i].needs_case = true,
            3 => (rules[i].needs_case, rules[i].needs_settlement) = (true, self.dice.chance(50)),
            4 => (rules[i].needs_case, rules[i].needs_settlement) = (false, false),
            5 => {
                let entry = Prohibition {
                    purpose: self.dice.chance(60).then(|| self.dice.one(Purpose::ALL)),
                    item: self.dice.chance(40).then(|| self.item(m)),
                    category: self.dice.chance(40).then(|| self.dice.one(Category::ALL)),
                };
                p.prohibited = list(vec![entry]);
            }
            6 => p.prohibited = List::empty(),
            _ => match self.dice.below(5) {
                0 => p.version = p.version + self.dice.below(2) as u32 * 2 - 1,
                1 => rules.push(rules[i].clone()),
                2 => p.committee.approvals = self.dice.below(4) as u32,
                3 => p.committee.roles = list(self.some(&[Role::Regulator, Role::Hospital, Role::Court], 2)),
                _ => rules[i].needs_case = !rules[i].needs_case,
            },
        }
        p.rules = list(rules);
        p
    }

    fn institution_change(&mut self, m: &Model) -> Option<ChangeInstitution> {
        let voters = self.voters(m);
        let idle: Vec<_> = m.institutions().into_iter().filter(|i| !voters.contains(i)).collect();
        let institution = match self.dice.below(100) {
            0..75 => self.dice.pick(&idle)?,
            75..88 => newcomer(),
            _ => self.dice.one(&m.institutions()),
        };
        let before = m.institution(institution);
        let mut c = ChangeInstitution {
            institution,
            standing: Standing::Active,
            record: None,
            possessions: List::empty(),
        };
        if before.is_some() && self.dice.chance(60) {
            c.standing = self.dice.one(&[
                Standing::Active,
                Standing::Suspended,
                Standing::Suspended,
                Standing::Expelled,
            ]);
            return Some(c);
        }
        let fresh = OperatorKey {
            algorithm: Algorithm::Ed25519,
            key: operator(self.dice.below(10)).public(),
            not_before: TimeMs(0),
            not_after: m.at.time.plus(900 * DAY_MS),
        };
        let mut record = before.as_ref().map_or_else(
            || InstitutionRecord {
                roles: list(vec![Role::Hospital]),
                keys: list(vec![fresh.clone()]),
                encryption_key: encryption_public(&[7; 32]),
                max_level: Level::High,
                jurisdiction: 156,
                rostered_until: None,
            },
            |i| InstitutionRecord {
                roles: i.roles.clone(),
                keys: i.keys.clone(),
                encryption_key: i.encryption_key,
                max_level: i.max_level,
                jurisdiction: i.jurisdiction,
                rostered_until: i.rostered_until,
            },
        );
        c.standing = before.as_ref().map_or(Standing::Active, |i| i.standing);
        match self.dice.below(9) {
            0 => record.max_level = self.level(),
            1 => record.jurisdiction = self.dice.one(&[0, 156, 344, 1000]),
            2 => record.rostered_until = Some(m.at.time.plus(self.dice.below(4 * DAY_MS))),
            3 => record.rostered_until = None,
            4 => record.roles = list(self.some(Role::ALL, 3)),
            5 => record.keys = list(vec![fresh]),
            6 => record.keys = list(vec![]),
            7 if self.dice.chance(30) => c.standing = self.dice.one(Standing::ALL),
            _ => (),
        }
        let old: Vec<_> = before.iter().flat_map(|i| i.keys.iter().map(|k| k.key)).collect();
        let new: Vec<_> = record.keys.iter().map(|k| k.key).filter(|k| !old.contains(k)).collect();
        if self.dice.chance(94) {
            let sign = |key: PublicKey| self.possession(institution, KeyUse::Operator, key);
            c.possessions = list(new.into_iter().map(sign).collect());
        }
        c.record = Some(record);
        Some(c)
    }

    fn possession(&self, institution: InstitutionId, key_use: KeyUse, key: PublicKey) -> Possession {
        let message = join_message(&self.world.genesis, &institution, key_use, &key);
        Possession { key, signature: self.world.secret(&key).sign(&message.0) }
    }

    fn validators(&mut self, m: &Model) -> ChangeValidators {
        let now = m.set_at(m.at.height);
        let mut replaces = now.hash();
        let mut set = now.validators.to_vec();
        let i = self.dice.below(set.len() as u64) as usize;
        let extra: Vec<_> = m.nodes().into_iter().filter(|n| set.iter().all(|v| v.key != n.key)).collect();
        match self.dice.below(8) {
            0 | 1 => drop(set.remove(i)),
            2 | 3 => set[i].power = self.dice.one(&[0, 1, 2, 3]),
            4 => set.push(set[i].clone()),
            5 => set.truncate(1 + i),
            _ => {
                let node = self.dice.pick(&extra);
                let (institution, key) =
                    node.map_or_else(|| (newcomer(), consensus(0).public()), |n| (n.institution, n.key));
                set.push(Validator { algorithm: Algorithm::Ed25519, key, power: 1, institution });
            }
        }
        if self.dice.chance(4) {
            replaces = digest("stale");
        }
        let far = self.dice.one(&[2, 2, 3, 4, 1, 1_000_000, 1_000_001]);
        let ahead = if self.dice.chance(75) { 3 + self.dice.below(4) } else { far };
        let from = Height(m.at.height.0 + ahead);
        let votes = |k: &PublicKey| now.validators.iter().any(|v| v.key == *k);
        let new = set.iter().filter(|v| !votes(&v.key) && self.world.keys.contains_key(&v.key));
        let possessions = new.map(|v| self.possession(v.institution, KeyUse::Consensus, v.key)).collect();
        let possessions = list(if self.dice.chance(94) { possessions } else { vec![] });
        ChangeValidators { replaces, validators: list(set), from, possessions }
    }

    fn nodes(&mut self, m: &Model) -> ChangeNodes {
        let known: Vec<_> = m.nodes().into_iter().map(|n| n.key).collect();
        let (mut admit, mut remove) = (vec![], vec![]);
        if self.dice.chance(80) {
            let n = self.dice.below(4);
            let institution =
                if self.dice.chance(92) { self.dice.one(&m.institutions()) } else { newcomer() };
            let network = if self.dice.chance(92) { consensus(n + 4) } else { consensus(n) };
            admit.push(admission(&self.world.genesis, institution, &consensus(n), &network));
        }
        if self.dice.chance(25) {
            remove.push(self.dice.one(&known));
        }
        if self.dice.chance(3) {
            remove.push(consensus(7).public());
        }
        ChangeNodes { admit: list(admit), remove: list(remove) }
    }
}

pub(crate) fn persons(m: &Model) -> Vec<AccountId> {
    let enrolled = m.applied().filter(|d| matches!(d.asked.action, Action::Enrol(_)));
    enrolled.map(|d| AccountId(d.asked.body.0)).collect()
}

/// Every time at which something begins, ends or falls due.
fn moments(m: &Model) -> Vec<TimeMs> {
    let mut all = Vec::new();
    for id in m.grants() {
        let g = m.grant_of(id).expect("it was just listed");
        all.extend([g.terms.not_before, g.terms.not_after]);
        all.extend(m.erasure_due(id));
    }
    all.extend(m.permits().filter(|p| p.delivered.is_none()).map(|p| p.expires_at));
    all.extend(m.delegations().into_iter().filter_map(|d| m.delegation(d)).map(|d| d.until));
    for id in persons(m) {
        all.extend(m.early(id).into_iter().map(|(_, until)| until));
        if let Some(r) = m.person(id).and_then(|p| p.recovery) {
            all.extend([r.until].into_iter().chain(r.ready_at));
        }
    }
    for id in m.institutions() {
        for e in m.open_emergencies(id) {
            all.extend(e.review_by.into_iter().chain(e.notify_by));
        }
        all.extend(m.institution(id).and_then(|i| i.rostered_until));
    }
    all.extend(m.orders().into_iter().filter_map(|o| m.order(o)).flat_map(|o| [o.not_after, o.notice_from]));
    all.extend(m.proposals().into_iter().filter_map(|p| m.proposal(p)).map(|p| p.until));
    all.extend(m.applied().filter_map(|d| match &d.asked.action {
        Action::ReviewOpening(r) => Some(r.until),
        _ => None,
    }));
    all
}
