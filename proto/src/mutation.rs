//! Faults that tests plant to prove that the simulation finds them. Without the cargo feature `mutations`,
//! which no program is built with, nothing can be planted and the compiler drops every such line.

/// A fault to plant. Each breaks one rule that safety or liveness rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutation {
    /// The vote log is not synced before a signature.
    SkipLogSync,
    /// After a restart a validator does not know what it is locked on.
    ForgetLock,
    /// A vote counts whoever signed it.
    UnsignedVotes,
    /// A proposal that a quorum may be locked on is called invalid if its time is off.
    UntimelyIsInvalid,
    /// Body and envelope have one id, so that a known body vouches for any signature.
    OneId,
    /// Revocations are executed where they stand in the block.
    RevokeInBlockOrder,
    /// The parent's certificate that a block carries is not verified.
    SkipParentCertificate,
    /// After a crash the newest block is applied to the state that holds it already.
    ApplyTwice,
    /// What others have seen of a validator before its start is not heeded.
    IgnoreFloor,
}

/// Whether a fault is planted: never.
#[cfg(not(feature = "mutations"))]
#[inline(always)]
pub const fn planted(_: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub use switch::{plant, planted};

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static PLANTED: Cell<Option<Mutation>> = const { Cell::new(None) };
    }

    /// Plants a fault in this thread, or none.
    pub fn plant(mutation: Option<Mutation>) {
        PLANTED.set(mutation);
    }

    /// Whether a fault is planted in this thread.
    pub fn planted(mutation: Mutation) -> bool {
        PLANTED.get() == Some(mutation)
    }
}
