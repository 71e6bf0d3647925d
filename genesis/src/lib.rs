//! The founding document of a chain: parse, validate, hash; make a devnet.
