//! What the node counts, in Prometheus' form. Nothing here names a person, an object or a transaction.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use assent_proto::Invalid;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::progress::Condition;

/// A gauge of unsigned numbers.
pub type Level = Gauge<u64, AtomicU64>;

/// Why a transaction was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Name of the code.
    pub code: &'static str,
}

/// What a client had too much of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Excess {
    /// Of what, in words.
    pub what: &'static str,
}

/// What a peer did and what followed; the table in `conduct.rs` bounds both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Conduct {
    /// The offence.
    pub kind: &'static str,
    /// What followed.
    pub consequence: &'static str,
}

/// All counters; a clone counts into the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Newest final height.
    pub height: Level,
    /// Round of the height in progress.
    pub round: Level,
    /// Connected nodes that listen to consensus.
    pub peers: Level,
    /// Nodes that may connect.
    pub admitted: Level,
    /// Bans in force.
    pub bans: Level,
    /// Peers' offences, by kind and consequence.
    pub offences: Family<Conduct, Counter>,
    /// Time for which peers' connections were not read because they were beyond their rate, µs.
    pub throttled_us: Counter,
    /// Connected nodes as the replica counts them.
    pub connected: Level,
    /// 1 while too few validators are connected to decide anything.
    pub waiting_for_quorum: Level,
    /// Validators of the height in progress.
    pub validators: Level,
    /// 1 while this node is one of them.
    pub voting: Level,
    /// 1 while this validator signs nothing at the height in progress.
    pub abstaining: Level,
    /// 1 while it asks the others what they have seen of it.
    pub inquiring: Level,
    /// Validators whose turns come last.
    pub passed_over: Level,
    /// Highest final height that connected peers tell of.
    pub target: Level,
    /// Contradictions of validators that were seen here.
    pub equivocations: Counter,
    /// Clients' calls, streams and connections refused because of their number.
    pub excess: Family<Excess, Counter>,
    /// Leaves of the newest final state.
    pub state_leaves: Level,
    /// Transactions that wait.
    pub pool_transactions: Level,
    /// Their bytes.
    pub pool_bytes: Level,
    /// From one final block to the next, as this node saw them.
    pub block_interval: Histogram,
    /// The atomic write of a block.
    pub commit_time: Histogram,
    /// From a submission that waits for finality to its receipt.
    pub finality: Histogram,
    /// Committed transactions.
    pub transactions: Counter,
    /// Committed denials.
    pub denied: Counter,
    /// Transactions not taken, by code.
    pub rejected: Family<Reason, Counter>,
    /// Envelopes whose signatures were verified on arrival.
    pub verified: Counter,
    /// Questions whether a request would be permitted, by what was answered.
    pub explained: Family<Reason, Counter>,
    /// Bytes of gossip and direct messages received.
    pub bytes_in: Counter,
    /// Bytes of gossip and direct messages sent.
    pub bytes_out: Counter,
    /// Messages dropped because a queue was full.
    pub dropped: Counter,
    /// Connections refused because the peer is not admitted.
    pub strangers: Counter,
    /// Writes that waited for the disk.
    pub fsyncs: Counter,
    /// Stored values that were found damaged when they were read.
    pub damaged: Counter,
    /// Older blocks that are still to be fetched from the others.
    pub missing_blocks: Level,
    /// The height of the state that is being taken in, 0 while none is.
    pub snapshot_height: Level,
    /// Parts of it that are here.
    pub snapshot_parts: Level,
    /// All parts of it.
    pub snapshot_parts_all: Level,
    /// 1 once this node has parted from the chain, until it stops.
    pub diverged: Level,
    /// Version of the rules in force at the height in progress.
    pub protocol: Level,
    /// The newest version that this program knows.
    pub known_protocol: Level,
    /// The first height that this program cannot execute, as far as it is decided; 0 while there is none.
    pub protocol_ends: Level,
}

impl Metrics {
    /// Fresh counters, and the registry that prints them.
    pub fn new() -> (Metrics, Registry) {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let m = Metrics {
            height: Level::default(),
            round: Level::default(),
            peers: Level::default(),
            admitted: Level::default(),
            bans: Level::default(),
            offences: Family::default(),
            throttled_us: Counter::default(),
            connected: Level::default(),
            waiting_for_quorum: Level::default(),
            validators: Level::default(),
            voting: Level::default(),
            abstaining: Level::default(),
            inquiring: Level::default(),
            passed_over: Level::default(),
            target: Level::default(),
            equivocations: Counter::default(),
            excess: Family::default(),
            state_leaves: Level::default(),
            pool_transactions: Level::default(),
            pool_bytes: Level::default(),
            block_interval: seconds(),
            commit_time: seconds(),
            finality: seconds(),
            transactions: Counter::default(),
            denied: Counter::default(),
            rejected: Family::default(),
            verified: Counter::default(),
            explained: Family::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            dropped: Counter::default(),
            strangers: Counter::default(),
            damaged: Counter::default(),
            missing_blocks: Level::default(),
            snapshot_height: Level::default(),
            snapshot_parts: Level::default(),
            snapshot_parts_all: Level::default(),
            diverged: Level::default(),
            protocol: Level::default(),
            known_protocol: Level::default(),
            protocol_ends: Level::default(),
            fsyncs: Counter::default(),
        };
        let mut r = Registry::with_prefix("assent");
        m.register(&mut r);
        m.register_peers(&mut r);
        m.register_consensus(&mut r);
        m.register_repair(&mut r);
        (m, r)
    }

    fn register(&self, r: &mut Registry) {
        let m = self;
        r.register("height", "Newest final height", m.height.clone());
        r.register("state_leaves", "Leaves of the newest final state", m.state_leaves.clone());
        r.register("pool_transactions", "Transactions that wait", m.pool_transactions.clone());
        r.register_with_unit("pool", "Transactions that wait", Unit::Bytes, m.pool_bytes.clone());
        let time = "Time between final blocks";
        r.register_with_unit("block_interval", time, Unit::Seconds, m.block_interval.clone());
        r.register_with_unit("commit_time", "Atomic write of a block", Unit::Seconds, m.commit_time.clone());
        r.register_with_unit("finality", "From submission to receipt", Unit::Seconds, m.finality.clone());
        r.register("transactions", "Committed transactions", m.transactions.clone());
        r.register("denied", "Committed denials", m.denied.clone());
        r.register("rejected", "Transactions not taken, by code", m.rejected.clone());
        r.register("verified", "Envelopes verified on arrival", m.verified.clone());
        r.register("explained", "Questions about requests, by answer", m.explained.clone());
        r.register("fsyncs", "Writes that waited for the disk", m.fsyncs.clone());
        r.register("client_excess", "Calls, streams, connections refused for their number", m.excess.clone());
    }

    fn register_peers(&self, r: &mut Registry) {
        let m = self;
        r.register("peers", "Connected nodes that listen to consensus", m.peers.clone());
        r.register("admitted_peers", "Nodes that may connect", m.admitted.clone());
        r.register("peer_bans", "Bans in force", m.bans.clone());
        r.register("peer_offences", "Offences of peers, by kind and consequence", m.offences.clone());
        let throttled = "Microseconds for which peers beyond their rate were not read";
        r.register("peer_throttled_us", throttled, m.throttled_us.clone());
        r.register_with_unit("received", "From peers", Unit::Bytes, m.bytes_in.clone());
        r.register_with_unit("sent", "To peers", Unit::Bytes, m.bytes_out.clone());
        r.register("dropped_messages", "Messages dropped at a full queue", m.dropped.clone());
        r.register("strangers", "Connections refused to peers not admitted", m.strangers.clone());
    }

    fn register_repair(&self, r: &mut Registry) {
        let m = self;
        r.register("damaged_values", "Stored values found damaged when read", m.damaged.clone());
        r.register("missing_blocks", "Older blocks still to be fetched", m.missing_blocks.clone());
        let taking = "Height of the state that is being taken in, or 0";
        r.register("snapshot_height", taking, m.snapshot_height.clone());
        r.register("snapshot_parts", "Parts of that state that are here", m.snapshot_parts.clone());
        r.register("snapshot_parts_all", "Parts that it has", m.snapshot_parts_all.clone());
        r.register("diverged", "1 once this node has parted from the chain", m.diverged.clone());
        r.register("protocol", "Protocol version in force", m.protocol.clone());
        r.register(
            "known_protocol",
            "Newest protocol version that this program knows",
            m.known_protocol.clone(),
        );
        let ends = "First height that needs a newer program, or 0";
        r.register("needs_newer_program_at_height", ends, m.protocol_ends.clone());
    }

    fn register_consensus(&self, r: &mut Registry) {
        let m = self;
        r.register("round", "Round of the height in progress", m.round.clone());
        r.register("connected_peers", "Connected nodes, observers too", m.connected.clone());
        let quorum = "1 while too few validators are connected";
        r.register("waiting_for_quorum", quorum, m.waiting_for_quorum.clone());
        r.register("validators", "Validators of the height in progress", m.validators.clone());
        r.register("voting", "1 while this node is a validator", m.voting.clone());
        r.register("abstaining", "1 while nothing is signed at this height", m.abstaining.clone());
        r.register("inquiring", "1 while it asks what others have seen of it", m.inquiring.clone());
        r.register("passed_over", "Validators whose turns come last", m.passed_over.clone());
        r.register("catch_up_target", "Highest final height that peers tell of", m.target.clone());
        r.register("equivocations", "Contradictions of validators seen here", m.equivocations.clone());
    }

    /// Shows how the replica is.
    pub fn show(&self, condition: &Condition) {
        let Condition { status, taking, missing, diverged } = condition;
        let taking = taking.unwrap_or_default();
        self.snapshot_height.set(taking.height.0);
        self.snapshot_parts.set(taking.parts.into());
        self.snapshot_parts_all.set(taking.of.into());
        self.missing_blocks.set(*missing);
        self.diverged.set(u64::from(*diverged));
        self.height.set(status.height.0);
        self.round.set(u64::from(status.round));
        self.pool_transactions.set(status.pool_transactions as u64);
        self.pool_bytes.set(status.pool_bytes as u64);
        self.connected.set(status.connected as u64);
        self.waiting_for_quorum.set(u64::from(status.waiting_for_quorum));
        self.validators.set(status.validators as u64);
        self.voting.set(u64::from(status.voting));
        self.abstaining.set(u64::from(status.abstaining.is_some()));
        self.inquiring.set(u64::from(status.inquiring));
        self.passed_over.set(status.passed_over.len() as u64);
        self.target.set(status.target.0);
        self.protocol.set(status.rules.version.into());
        self.known_protocol.set(status.rules.known.into());
        self.protocol_ends.set(status.rules.ends().map_or(0, |(_, from)| from.0));
    }

    /// Counts a client that was refused because it had too much of something.
    pub fn exceeded(&self, what: &'static str) {
        self.excess.get_or_create(&Excess { what }).inc();
    }

    /// Counts a transaction that was not taken.
    pub fn reject(&self, reason: Invalid) {
        self.rejected.get_or_create(&Reason { code: reason.name() }).inc();
    }

    /// Counts a question by the name of its answer.
    pub fn explain(&self, code: &'static str) {
        self.explained.get_or_create(&Reason { code }).inc();
    }

    /// Counts a peer's offence.
    pub fn offence(&self, kind: &'static str, consequence: &'static str) {
        self.offences.get_or_create(&Conduct { kind, consequence }).inc();
    }

    /// Records a duration in seconds.
    pub fn observe(histogram: &Histogram, time: Duration) {
        histogram.observe(time.as_secs_f64());
    }
}
