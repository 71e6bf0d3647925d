//! What was made of what (R24): ancestors of a product, descendants of a record or product, and what a grant
//! reaches. The graph is walked over a small source, so that the same code runs on proved answers of a node
//! and on graphs in memory.

use std::collections::btree_map::Entry as Entries;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use assent_proto::event::EventKind;
use assent_proto::transaction::{Action, Author, Record};
use assent_proto::{
    AccountId, ArtifactId, BodyId, Commitment, GrantId, Hash, Height, ObjectRef, PermitId, TimeMs,
};
use serde::Serialize;

/// A thing of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "kind", content = "id", rename_all = "kebab-case")]
pub enum Node {
    /// A record, by its commitment.
    Record(Commitment),
    /// A grant.
    Grant(GrantId),
    /// A permitted use.
    Permit(PermitId),
    /// An activity.
    Activity(BodyId),
    /// A product of an activity.
    Artifact(ArtifactId),
}

/// A transaction, as far as lineage needs it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// At this height.
    pub height: Height,
    /// At this block time.
    pub time: TimeMs,
    /// By whom.
    pub author: Author,
    /// What for.
    pub action: Action,
    /// The denial's code, if the rules said no.
    pub denied: Option<u32>,
}

/// One event of a trail.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What happened.
    pub kind: EventKind,
    /// In which transaction.
    pub body: BodyId,
    /// At which height.
    pub height: Height,
}

/// Where the graph comes from. Both answers must be complete; whoever implements it says how that is known.
pub trait Source {
    /// Why there is no answer.
    type Error;
    /// A final transaction, if there is one of this id.
    fn entry(&mut self, id: BodyId) -> Result<Option<Entry>, Self::Error>;
    /// All events that joined the object's trail, first to last; none if there is no such object.
    fn trail(&mut self, object: ObjectRef) -> Result<Vec<Step>, Self::Error>;
}

/// A denied request whose data stayed out of an activity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Excluded {
    /// The activity.
    pub activity: BodyId,
    /// The request.
    pub request: BodyId,
    /// Whose data it asked for.
    pub account: Option<AccountId>,
    /// Why it was denied; 0 if by then there was no such denied request on the chain.
    pub code: u32,
}

/// A walked part of the graph.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Everything found, the start included, with its transaction where it has one.
    pub nodes: BTreeMap<Node, Option<Entry>>,
    /// From what went in to what came out.
    pub edges: BTreeSet<(Node, Node)>,
    /// Whose data stayed out.
    pub excluded: BTreeSet<Excluded>,
}

impl Graph {
    /// What came directly of a thing.
    pub fn outputs(&self, of: Node) -> impl Iterator<Item = Node> {
        self.edges.iter().filter(move |(from, _)| *from == of).map(|(_, to)| *to)
    }

    /// What a thing came of directly.
    pub fn inputs(&self, of: Node) -> impl Iterator<Item = Node> {
        self.edges.iter().filter(move |(_, to)| *to == of).map(|(from, _)| *from)
    }
}

/// Everything that a product was made of, back to records and grants, as of a height.
pub fn ancestors<S: Source>(source: &mut S, artifact: ArtifactId, as_of: Height) -> Result<Graph, S::Error> {
    let mut walk = Walk { source, as_of, graph: Graph::default(), queue: VecDeque::new() };
    walk.find(Node::Artifact(artifact));
    while let Some(node) = walk.queue.pop_front() {
        walk.up(node)?;
    }
    Ok(walk.graph)
}

/// Everything that was made of a record of this account, as of a height.
pub fn descendants_of_record<S: Source>(
    source: &mut S,
    account: AccountId,
    record: Commitment,
    as_of: Height,
) -> Result<Graph, S::Error> {
    let mut walk = Walk { source, as_of, graph: Graph::default(), queue: VecDeque::new() };
    let start = Node::Record(record);
    walk.graph.nodes.insert(start, None);
    // Every permit joins the trail of each person whose records it permits. Under an opening it may be for
    // the records of several, and only their source sees to it that no two have the same commitment.
    for permit in walk.permits(account.into())? {
        let is_it = |r: &Record| r.account == account && r.commitment == record;
        let names_it = |a: &Action| match a {
            Action::RequestAccess(r) => r.records.iter().any(|p| is_it(&p.record)),
            _ => false,
        };
        if walk.entry(BodyId(permit.0))?.is_some_and(|e| names_it(&e.action)) {
            walk.edge(start, Node::Permit(permit), Node::Permit(permit));
        }
    }
    walk.all_down()
}

/// Everything that was made of a product, as of a height.
pub fn descendants<S: Source>(
    source: &mut S,
    artifact: ArtifactId,
    as_of: Height,
) -> Result<Graph, S::Error> {
    let mut walk = Walk { source, as_of, graph: Graph::default(), queue: VecDeque::new() };
    walk.find(Node::Artifact(artifact));
    walk.all_down()
}

/// Everything that was made on a grant, as of a height: what its revocation concerns.
pub fn impact<S: Source>(source: &mut S, grant: GrantId, as_of: Height) -> Result<Graph, S::Error> {
    let mut walk = Walk { source, as_of, graph: Graph::default(), queue: VecDeque::new() };
    walk.find(Node::Grant(grant));
    walk.all_down()
}

struct Walk<'a, S: Source> {
    source: &'a mut S,
    as_of: Height,
    graph: Graph,
    queue: VecDeque<Node>,
}

impl<S: Source> Walk<'_, S> {
    /// Notes a thing, and that it is to be looked at if it is new.
    fn find(&mut self, node: Node) {
        if let Entries::Vacant(new) = self.graph.nodes.entry(node) {
            new.insert(None);
            self.queue.push_back(node);
        }
    }

    fn edge(&mut self, from: Node, to: Node, found: Node) {
        self.graph.edges.insert((from, to));
        self.find(found);
    }

    /// An applied transaction not later than the height asked about.
    fn entry(&mut self, id: BodyId) -> Result<Option<Entry>, S::Error> {
        Ok(self.source.entry(id)?.filter(|e| e.height <= self.as_of && e.denied.is_none()))
    }

    fn steps(&mut self, object: ObjectRef, kind: EventKind) -> Result<Vec<BodyId>, S::Error> {
        let as_of = self.as_of;
        let steps = self.source.trail(object)?;
        Ok(steps.into_iter().filter(|s| s.kind == kind && s.height <= as_of).map(|s| s.body).collect())
    }

    fn permits(&mut self, object: ObjectRef) -> Result<Vec<PermitId>, S::Error> {
        Ok(self.steps(object, EventKind::Permitted)?.into_iter().map(|b| PermitId(b.0)).collect())
    }

    /// Looks one step back.
    fn up(&mut self, node: Node) -> Result<(), S::Error> {
        match node {
            Node::Artifact(id) => {
                // A product's first event is the activity that made it.
                let maker = self.steps(id.into(), EventKind::ActivityRecorded)?.first().copied();
                if let Some(activity) = maker {
                    self.edge(Node::Activity(activity), node, Node::Activity(activity));
                }
            }
            Node::Activity(id) => self.activity_inputs(node, id)?,
            Node::Permit(id) => {
                let entry = self.entry(BodyId(id.0))?;
                if let Some(Action::RequestAccess(r)) = entry.as_ref().map(|e| &e.action) {
                    for record in &r.records {
                        let record = Node::Record(record.record.commitment);
                        self.edge(record, node, record);
                    }
                    if let Some(grant) = r.grant {
                        self.edge(Node::Grant(grant), node, Node::Grant(grant));
                    }
                }
                self.graph.nodes.insert(node, entry);
            }
            Node::Grant(id) => {
                let entry = self.entry(BodyId(id.0))?;
                self.graph.nodes.insert(node, entry);
            }
            Node::Record(_) => {}
        }
        Ok(())
    }

    fn activity_inputs(&mut self, node: Node, id: BodyId) -> Result<(), S::Error> {
        let entry = self.entry(id)?;
        if let Some(Action::RecordActivity(a)) = entry.as_ref().map(|e| &e.action) {
            for permit in &a.permits {
                self.edge(Node::Permit(*permit), node, Node::Permit(*permit));
            }
            for artifact in &a.artifacts {
                self.edge(Node::Artifact(*artifact), node, Node::Artifact(*artifact));
            }
            self.excluded(id, &a.excluded)?;
        }
        self.graph.nodes.insert(node, entry);
        Ok(())
    }

    fn excluded(&mut self, activity: BodyId, requests: &[BodyId]) -> Result<(), S::Error> {
        for request in requests {
            // A request may be named before it is on the chain.
            let entry = self.source.entry(*request)?.filter(|e| e.height <= self.as_of);
            let account = match entry.as_ref().map(|e| &e.action) {
                Some(Action::RequestAccess(r)) => r.account,
                _ => None,
            };
            let code = entry.and_then(|e| e.denied).unwrap_or(0);
            self.graph.excluded.insert(Excluded { activity, request: *request, account, code });
        }
        Ok(())
    }

    fn all_down(mut self) -> Result<Graph, S::Error> {
        while let Some(node) = self.queue.pop_front() {
            self.down(node)?;
        }
        Ok(self.graph)
    }

    /// Looks one step forward.
    fn down(&mut self, node: Node) -> Result<(), S::Error> {
        match node {
            Node::Grant(id) => {
                for permit in self.permits(id.into())? {
                    self.edge(node, Node::Permit(permit), Node::Permit(permit));
                }
                let entry = self.entry(BodyId(id.0))?;
                self.graph.nodes.insert(node, entry);
            }
            Node::Permit(id) => {
                self.activities(
                    node,
                    id.into(),
                    |a| matches!(a, Action::RecordActivity(r) if r.permits.contains(&id)),
                )?;
                let entry = self.entry(BodyId(id.0))?;
                self.graph.nodes.insert(node, entry);
            }
            Node::Artifact(id) => {
                self.activities(
                    node,
                    id.into(),
                    |a| matches!(a, Action::RecordActivity(r) if r.artifacts.contains(&id)),
                )?;
            }
            Node::Activity(id) => {
                let entry = self.entry(id)?;
                if let Some(Action::RecordActivity(a)) = entry.as_ref().map(|e| &e.action) {
                    for product in &a.outputs {
                        let product = Node::Artifact(product.id);
                        self.edge(node, product, product);
                    }
                    self.excluded(id, &a.excluded)?;
                }
                self.graph.nodes.insert(node, entry);
            }
            Node::Record(_) => {}
        }
        Ok(())
    }

    /// The activities on an object's trail that it went into.
    fn activities(
        &mut self,
        node: Node,
        object: ObjectRef,
        used: impl Fn(&Action) -> bool,
    ) -> Result<(), S::Error> {
        for id in self.steps(object, EventKind::ActivityRecorded)? {
            if self.entry(id)?.is_some_and(|e| used(&e.action)) {
                self.edge(node, Node::Activity(id), Node::Activity(id));
            }
        }
        Ok(())
    }
}

impl Node {
    /// Its 32-byte name.
    pub fn id(&self) -> Hash {
        match self {
            Node::Record(id) => id.0,
            Node::Grant(id) => id.0,
            Node::Permit(id) => id.0,
            Node::Activity(id) => id.0,
            Node::Artifact(id) => id.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assent_proto::field::List;
    use assent_proto::transaction::{ActivityKind, Level, Product, RecordActivity};
    use assent_proto::{InstitutionId, hash};

    /// Activities over artifacts alone: artifact `i` is made by activity `i` of the artifacts in `made_of[i]`.
    struct Chain(Vec<Vec<usize>>);

    fn name(i: usize) -> Hash {
        hash::DOCUMENT.hash(&[&i.to_le_bytes()])
    }

    impl Source for Chain {
        type Error = std::convert::Infallible;
        fn entry(&mut self, id: BodyId) -> Result<Option<Entry>, Self::Error> {
            Ok((0..self.0.len()).find(|i| name(*i) == id.0).map(|i| Entry {
                height: Height(i as u64),
                time: TimeMs(0),
                author: Author::Institution(InstitutionId(Hash::ZERO)),
                action: Action::RecordActivity(Box::new(RecordActivity {
                    kind: ActivityKind::Clean,
                    permits: List::empty(),
                    artifacts: self.0[i]
                        .iter()
                        .map(|j| ArtifactId(name(*j)))
                        .collect::<Vec<_>>()
                        .try_into()
                        .unwrap(),
                    outputs: vec![Product { id: ArtifactId(name(i)), level: Level::Low }].try_into().unwrap(),
                    plan: Hash::ZERO,
                    excluded: List::empty(),
                })),
                denied: None,
            }))
        }
        fn trail(&mut self, object: ObjectRef) -> Result<Vec<Step>, Self::Error> {
            let made = (0..self.0.len()).find(|i| name(*i) == object.id);
            let used = (0..self.0.len()).filter(|i| self.0[*i].iter().any(|j| name(*j) == object.id));
            let step = |i: usize| Step {
                kind: EventKind::ActivityRecorded,
                body: BodyId(name(i)),
                height: Height(i as u64),
            };
            Ok(made.into_iter().chain(used).map(step).collect())
        }
    }

    fn artifacts(graph: &Graph) -> BTreeSet<Hash> {
        graph.nodes.keys().filter(|n| matches!(n, Node::Artifact(_))).map(Node::id).collect()
    }

    #[test]
    fn r24_both_directions_and_as_of_a_height() {
        // 0 and 1 are made of nothing, 2 of both, 3 of 2, 4 of 1.
        let mut chain = Chain(vec![vec![], vec![], vec![0, 1], vec![2], vec![1]]);
        let set = |ids: &[usize]| ids.iter().map(|i| name(*i)).collect::<BTreeSet<_>>();
        let up = |c: &mut Chain, i, h| artifacts(&ancestors(c, ArtifactId(name(i)), Height(h)).unwrap());
        let down = |c: &mut Chain, i, h| artifacts(&descendants(c, ArtifactId(name(i)), Height(h)).unwrap());
        assert_eq!(up(&mut chain, 3, 9), set(&[0, 1, 2, 3]));
        assert_eq!(up(&mut chain, 4, 9), set(&[1, 4]));
        assert_eq!(down(&mut chain, 1, 9), set(&[1, 2, 3, 4]));
        assert_eq!(down(&mut chain, 1, 3), set(&[1, 2, 3]), "as of height 3 there is no product 4");
        assert_eq!(up(&mut chain, 3, 2), set(&[3]), "as of height 2 nothing had made product 3");
    }
}
