//! BFT consensus: Malachite's core state machine, driven, with its vote log.
