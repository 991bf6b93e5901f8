#!/usr/bin/env bash
# Runs all tests: unit, property, crash and damage tests, the command line's, the documentation's,
# the example, a smoke run of the fuzz targets, and interleavings.
set -euo pipefail
cd "$(dirname "$0")"
cargo test --all-features
cargo run --quiet --example contacts_sync --features http
cargo test --manifest-path fuzz/Cargo.toml
# In its folder, whose configuration has the engine built with the checker's locks.
(cd shuttle && cargo test)
