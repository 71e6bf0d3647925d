//! The rules of consent, as scenarios through one door: transactions go in, verdicts and events come out.
//! A test that proves a row of REQUIREMENTS names it.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod block;
mod catalogue;
mod codes;
mod consent;
mod governance;
mod lineage;
mod trails;
mod validity;
