//! What crosses crates: simulation, real processes, the demo, fixtures.
