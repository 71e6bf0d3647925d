//! The rules of consent, as scenarios through one door: transactions go in, verdicts and events come out.
//! A test that proves a row of REQUIREMENTS names it.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod bases;
mod block;
mod catalogue;
mod codes;
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
mod policy;
mod protocol;
mod trails;
mod validity;
