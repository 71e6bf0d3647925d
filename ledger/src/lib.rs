//! The rules of consent: what a block of transactions makes of the state.
//!
//! Pure and deterministic: no clock, no randomness, no floats, no storage, no hash maps. The same state,
//! window and block give the same roots, events and receipts on every machine. Read it in this order: who
//! may be in a block at all ([`check()`]), what a block does ([`apply()`]), what each action decides (`identity`,
//! `delegation`, `catalogue`, `consent`, `access` with `basis`, `delivery`, `emergency`, `orders`, `lineage`,
//! `institutions`, `governance` with `committee`), how that becomes events and trails (`outcome`, `overlay`), and
//! how state is held and proved ([`State`]). All rules in words: [`rules`].

mod access;
mod apply;
mod basis;
mod calendar;
mod catalogue;
mod check;
mod committee;
mod consent;
mod delegation;
mod delivery;
mod emergency;
mod explain;
mod governance;
mod identity;
mod institutions;
mod lineage;
mod orders;
mod outcome;
mod overlay;
pub mod rules;
pub mod testing;
mod trie;
mod turns;
mod window;

pub use apply::{Applied, BlockContext, InvalidBlock, apply};
pub use check::check;
pub use explain::{Verdict, explain, may_ask, may_sign};
pub use governance::preview;
pub use overlay::{Content, nodes, parameters, policy, protocol, read, turns, validators};
pub use trie::{Gather, State};
pub use turns::ParentTurns;
pub use window::ReplayWindow;
