//! What follows a permit: release, or none and the use given back; erasure and holds (R3, R9).

use assent_proto::Denial;

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    unreachable!("{code}: no scenario yet")
}
