//! What a node is on its chain, as far as it can tell without asking anybody: from its own database, or from the
//! founding state while that is empty. Reads beside a running node and writes nothing.
//!
//! It answers an operator. What the replica does follows from the state that it opens itself.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use assent_genesis::Genesis;
use assent_proto::field::Message;
use assent_proto::state::{Nodes, Validators};
use assent_proto::{Height, InstitutionId, ObjectRef, PublicKey};
use rocksdb::{DB, Options};

use crate::keys::Keys;
use crate::reader::{Active, ReadError, Reader};
use crate::store::{DATABASE, OpenError};
use crate::tables::{ALL, KEY_GENESIS, KEY_LAYOUT, KEY_LEAVES, LAYOUT, META, decode};

/// A node of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where this was read.
    pub source: Source,
    /// Whose node it is.
    pub institution: InstitutionId,
    /// Whether it votes.
    pub vote: Vote,
}

/// A state by which a node is judged: that after a height, the newest here; 0 for the founding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(pub Height);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            0 => f.write_str("the genesis file"),
            height => write!(f, "the registry after block {height}"),
        }
    }
}

/// Whether a node votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// On the next block.
    Now {
        /// Its power.
        power: u32,
        /// All validators' power.
        total: u64,
    },
    /// It is decided that it votes from this height on.
    From(Height),
    /// It voted up to this height and does not any more: it observes.
    Until(Height),
    /// It observes.
    No,
}

/// Why a node has no standing.
#[derive(Debug, thiserror::Error)]
pub enum NoStanding {
    /// Nobody lets it in.
    #[error(
        "{0} names no node with this consensus key: it neither votes nor may connect. If it is to join a running \
         chain, `assent govern piece` and `assent govern propose nodes --admit` have it admitted, and \
         `assent govern show` at another node tells whether it is"
    )]
    Unknown(Source),
    /// Its peers expect another key.
    #[error("the network key is not the one that {0} names for this node: its peers would refuse it")]
    OtherNetworkKey(Source),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What the keys under `home` make of a node, by the newest state there.
pub fn standing(home: &Path, genesis: &Genesis, keys: &Keys) -> Result<Standing, NoStanding> {
    let (source, validators, nodes) = registry(home, genesis)?.unwrap_or_else(|| founding(genesis));
    judge(source, &validators, &nodes, keys)
}

/// Who votes and who may connect, after a height.
type Registry = (Source, Validators, Nodes);

fn founding(genesis: &Genesis) -> Registry {
    let leaves = genesis.leaves();
    let content = |object| leaves.iter().find(|l| l.object == object).map(|l| &l.content[..]);
    let validators = content(ObjectRef::VALIDATORS).and_then(|c| Validators::decode(c).ok());
    let nodes = content(ObjectRef::NODES).and_then(|c| Nodes::decode(c).ok());
    let founded = "the founding state holds the validators and the nodes";
    (Source(Height(0)), validators.expect(founded), nodes.expect(founded))
}

/// What the newest state in the database says; none if there is no database yet, or no block in it.
fn registry(home: &Path, genesis: &Genesis) -> Result<Option<Registry>, NoStanding> {
    let path = home.join(DATABASE);
    if !path.is_dir() {
        return Ok(None);
    }
    let read = |error| OpenError::Database { path: path.display().to_string(), error };
    // A look at the files as they are: a running node keeps its lock, and nothing is replayed to disk.
    let db = DB::open_cf_for_read_only(&Options::default(), &path, ALL, false).map_err(read)?;
    let meta = |key| db.get_cf(db.cf_handle(META).expect("it was opened"), key).map_err(read);
    if let Some(found) = meta(KEY_GENESIS)?.filter(|found| found != genesis.hash().as_bytes()) {
        let found = hex::encode(found);
        return Err(OpenError::OtherChain { found, given: genesis.hash() }.into());
    }
    if let Some(layout) = meta(KEY_LAYOUT)?.filter(|layout| layout != LAYOUT) {
        return Err(OpenError::OtherLayout(String::from_utf8_lossy(&layout).into_owned()).into());
    }
    let active = Active::default();
    if let Some(table) = meta(KEY_LEAVES)? {
        active.set(&table);
    }
    let reader = Reader::new(Arc::new(db), active);
    let Some(tip) = reader.tip()? else { return Ok(None) };
    let validators = object(&reader, ObjectRef::VALIDATORS, "the validators")?;
    let nodes = object(&reader, ObjectRef::NODES, "the registry of nodes")?;
    Ok(Some((Source(tip.header.height), validators, nodes)))
}

fn object<T: Message>(reader: &Reader, object: ObjectRef, what: &'static str) -> Result<T, ReadError> {
    let leaf = reader.leaf(&object)?.ok_or(ReadError::Lacks(what))?;
    Ok(decode(leaf.content)?)
}

fn judge(
    source: Source,
    validators: &Validators,
    nodes: &Nodes,
    keys: &Keys,
) -> Result<Standing, NoStanding> {
    let key = keys.consensus.public();
    let node = nodes.by_key(&key).ok_or(NoStanding::Unknown(source))?;
    if node.network_key != keys.network.public() {
        return Err(NoStanding::OtherNetworkKey(source));
    }
    Ok(Standing { source, institution: node.institution, vote: vote(source.0, validators, &key) })
}

fn vote(height: Height, validators: &Validators, key: &PublicKey) -> Vote {
    let set = validators.at(height.next());
    if let Some(v) = set.validators.iter().find(|v| v.key == *key) {
        return Vote::Now { power: v.power, total: set.total_power() };
    }
    let pending = validators.pending.as_ref().filter(|p| p.set.validators.iter().any(|v| v.key == *key));
    let former = validators.former.iter().find(|f| f.validator.key == *key);
    match (pending, former) {
        (Some(pending), _) => Vote::From(pending.from),
        (None, Some(former)) => Vote::Until(former.until),
        (None, None) => Vote::No,
    }
}

#[cfg(test)]
mod tests {
    use assent_genesis::testing;
    use assent_proto::state::{FormerValidator, PendingSet};
    use assent_proto::{List, SecretKey, ValidatorSet};

    use super::*;

    #[test]
    fn a_change_of_validators_counts_from_its_height_on() {
        let devnet = testing::devnet(4, 4);
        let (_, mut validators, nodes) = founding(&devnet.genesis);
        let keys = |i: usize| Keys {
            consensus: devnet.nodes[i].consensus.clone(),
            network: devnet.nodes[i].network.clone(),
        };
        let vote = |validators: &Validators, height, i| {
            judge(Source(Height(height)), validators, &nodes, &keys(i)).unwrap().vote
        };
        assert_eq!(vote(&validators, 0, 3), Vote::Now { power: 1, total: 4 });

        // The first three vote, and from block 10 on the last three.
        let all = validators.current.validators.clone().into_vec();
        let set = |v: &[_]| ValidatorSet { validators: List::try_from(v.to_vec()).unwrap() };
        let last = all.iter().find(|v| v.key == devnet.nodes[3].consensus.public()).unwrap().clone();
        let first = all.iter().find(|v| v.key == devnet.nodes[0].consensus.public()).unwrap().clone();
        let but = |key| set(&all.iter().filter(|v| v.key != key).cloned().collect::<Vec<_>>());
        validators.current = but(last.key);
        let gone = FormerValidator { validator: first.clone(), until: Height(9) };
        validators.former = vec![gone].try_into().unwrap();
        validators.pending = Some(PendingSet { from: Height(10), set: but(first.key) });
        let three = Vote::Now { power: 1, total: 3 };
        assert_eq!((vote(&validators, 8, 0), vote(&validators, 8, 3)), (three, Vote::From(Height(10))));
        assert_eq!((vote(&validators, 9, 0), vote(&validators, 9, 3)), (Vote::Until(Height(9)), three));
        validators.former = List::empty();
        assert_eq!(vote(&validators, 9, 0), Vote::No, "what is long past is forgotten");
    }

    #[test]
    fn both_keys_have_to_be_the_registrys() {
        let devnet = testing::devnet(4, 4);
        let (source, validators, nodes) = founding(&devnet.genesis);
        let judged = |consensus: &SecretKey, network: &SecretKey| {
            let keys = Keys { consensus: consensus.clone(), network: network.clone() };
            judge(source, &validators, &nodes, &keys)
        };
        let (one, other) = (&devnet.nodes[0], &devnet.nodes[1]);
        assert!(judged(&one.consensus, &one.network).is_ok());
        assert!(matches!(judged(&one.consensus, &other.network), Err(NoStanding::OtherNetworkKey(_))));
        assert!(matches!(judged(&one.network, &one.consensus), Err(NoStanding::Unknown(_))));
    }
}
