//! assent: wallet, institution, custodian, audit and verify; trusts no node.
