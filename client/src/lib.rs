//! assent: wallet, institution, custodian, audit and verify; trusts no node.
//!
//! Everything that a command tells of the chain was proved against the genesis file first ([`rpc`] is the one
//! door). Secrets lie in encrypted files ([`keyfile`]); what a custodian keeps off chain in [`store`]. Read on
//! in the order of a story: [`founding`], [`wallet`] with [`persons`], [`institution`] with [`anchor`], [`access`],
//! [`explain`], [`activity`], [`office`] and [`orders`], what two sign in [`cosign`]; [`custodian`], [`audit`] on [`lineage`],
//! [`misconduct`] and `duties`, [`govern`] with [`piece`], [`join`], [`change`] and [`charter`], [`verify`].

pub mod access;
pub mod activity;
pub mod anchor;
pub mod audit;
pub mod change;
pub mod charter;
pub mod context;
pub mod cosign;
pub mod custodian;
mod duties;
pub mod error;
pub mod explain;
pub mod files;
pub mod founding;
pub mod govern;
pub mod handle;
pub mod institution;
pub mod join;
pub mod keyfile;
pub mod lineage;
pub mod misconduct;
pub mod office;
pub mod orders;
pub mod output;
pub mod package;
pub mod persons;
pub mod piece;
pub mod qr;
pub mod request;
pub mod rpc;
pub mod store;
#[cfg(test)]
mod testing;
pub mod verify;
pub mod wallet;
pub mod words;
