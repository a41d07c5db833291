# Short names for what is done often; `just` lists them.

default:
    @just --list

# The main job on the embedded default.
demo *args:
    cargo run --release -- demo {{args}}

# Everything that has to pass before a push.
check:
    cargo fmt --check
    cargo clippy --release --all-targets -- -D warnings
    cargo test --release

# Licences, bans and sources of the dependencies (needs cargo-deny).
deny:
    cargo deny --config .cargo/deny.toml check licenses bans sources
