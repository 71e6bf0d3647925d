//! The policy and its versions, the negative list, the committee, grading down (R10, R14, R21).

use assent_proto::Denial;

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    unreachable!("{code}: no scenario yet")
}
