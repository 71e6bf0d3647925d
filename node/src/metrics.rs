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

/// A gauge of unsigned numbers.
pub type Level = Gauge<u64, AtomicU64>;

/// Why a transaction was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Name of the code.
    pub code: &'static str,
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
    /// Time for which peers' connections were not read because they were beyond their rate, ms.
    pub throttled_ms: Counter,
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
            throttled_ms: Counter::default(),
            pool_transactions: Level::default(),
            pool_bytes: Level::default(),
            block_interval: seconds(),
            commit_time: seconds(),
            finality: seconds(),
            transactions: Counter::default(),
            denied: Counter::default(),
            rejected: Family::default(),
            verified: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            dropped: Counter::default(),
            strangers: Counter::default(),
            fsyncs: Counter::default(),
        };
        let mut r = Registry::with_prefix("assent");
        r.register("height", "Newest final height", m.height.clone());
        r.register("round", "Round of the height in progress", m.round.clone());
        r.register("peers", "Connected nodes that listen to consensus", m.peers.clone());
        r.register("admitted_peers", "Nodes that may connect", m.admitted.clone());
        r.register("peer_bans", "Bans in force", m.bans.clone());
        r.register("peer_offences", "Offences of peers, by kind and consequence", m.offences.clone());
        let throttled = "Milliseconds for which peers beyond their rate were not read";
        r.register("peer_throttled_ms", throttled, m.throttled_ms.clone());
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
        r.register_with_unit("received", "From peers", Unit::Bytes, m.bytes_in.clone());
        r.register_with_unit("sent", "To peers", Unit::Bytes, m.bytes_out.clone());
        r.register("dropped_messages", "Messages dropped at a full queue", m.dropped.clone());
        r.register("strangers", "Connections refused to peers not admitted", m.strangers.clone());
        r.register("fsyncs", "Writes that waited for the disk", m.fsyncs.clone());
        (m, r)
    }

    /// Counts a transaction that was not taken.
    pub fn reject(&self, reason: Invalid) {
        self.rejected.get_or_create(&Reason { code: reason.name() }).inc();
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
