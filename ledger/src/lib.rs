//! The rules of consent: apply a block to the state, with roots, receipts and events.
