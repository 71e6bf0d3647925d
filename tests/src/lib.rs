//! What crosses crates: the simulation, and real processes on loopback and on hosts of their own.
//!
//! No rule and no protocol lives here.

pub mod canary;
pub mod checker;
pub mod clients;
pub mod fuzz;
pub mod golden;
pub mod hosts;
pub mod mix;
pub mod model;
pub mod network;
pub mod sim;
pub mod stage;
