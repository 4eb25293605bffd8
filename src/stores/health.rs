//! From pings, signs and refused connections to one verdict a store: pure, so that every rule is a table test.

/// What the sentinel says of its server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {}
