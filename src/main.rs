//! The commands: `run`, `crds`, `migrate`.

fn main() {}
