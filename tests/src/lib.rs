//! What crosses crates: real processes on loopback, for the tests and for the demo.
//!
//! No rule and no protocol lives here.

pub mod canary;
pub mod network;
pub mod sim;
