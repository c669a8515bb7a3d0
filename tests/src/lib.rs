//! What crosses crates: cluster harness, foreign clients, crash and benchmark suites.
