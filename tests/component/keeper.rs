//! The registry and the two tasks with an engine that can be told how to behave.
