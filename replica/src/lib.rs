//! A whole validator as a pure machine over storage and timed inputs.
