//! The migration engine. Knows nothing of Kubernetes: the same code serves the Job and the command line.
