//! assentd: a network, a clock, a database and a public interface around one [`assent_replica::Replica`].
//!
//! What the replica decides is not decided here. One thread owns it ([`runner`]); the network task, the
//! intake and the RPC service send it messages and never wait for each other in a circle. Read in the order
//! of a transaction's way: [`rpc`] or [`network`], [`intake`], [`runner`], [`store`], [`feed`], [`rpc`].

pub mod clients;
pub mod clock;
pub mod conduct;
mod direct;
pub mod explain;
pub mod feed;
pub mod intake;
pub mod keys;
pub mod metrics;
pub mod network;
pub mod node;
mod outbox;
mod peers;
mod port;
mod progress;
pub mod rate;
pub mod reader;
pub mod repair;
mod report;
pub mod rpc;
pub mod runner;
pub mod signed;
pub mod standing;
pub mod store;
mod tables;
mod wire;

/// The service as `tonic` generates it from `rpc.proto`, server and client.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod api {
    tonic::include_proto!("assent.v1");
    /// The schema of the service and all that it uses, for reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("rpc");
}

pub use node::{Config, Node, NodeError};

/// The version that `assentd` reports.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
