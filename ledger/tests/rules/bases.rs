//! Each use rests on one basis, which is in force and not the requester's own.

use assent_proto::Denial;

/// Does what the rules answer with this code.
pub(crate) fn provoke(code: Denial) -> Result<(), Denial> {
    unreachable!("{code}: no scenario yet")
}
