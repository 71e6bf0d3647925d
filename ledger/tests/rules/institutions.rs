//! Who institutions are: admission, standing, keys (R18).

use assent_proto::Denial;

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    unreachable!("{code}: no scenario yet")
}
