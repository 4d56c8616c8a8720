# Names of commands, nothing more: logic lives in Rust and in scripts/.

# what continuous integration runs
ci:
    .ci/run

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets -- -D warnings

# everything; `just test NAME` for those whose name contains NAME
test filter="":
    ./scripts/test {{filter}}

# one module of the end-to-end tests: `just e2e mercury::`
e2e module:
    ./scripts/test {{module}}

# the three benches, as they are kept under bench/runs/; queue beside its peers is bench-queue
bench *args:
    cargo run --release -- bench {{args}}

# the queue beside its peers, every commit on the disk: `just bench-queue --only drain,bulk --save bench/runs`
bench-queue *args:
    ./scripts/get-bench-peers queue
    cargo build --release
    ./scripts/with-postgres --fsync sh -c 'target/release/minium bench queue --peers --database "$MINIUM_TEST_POSTGRES" "$@"' bench {{args}}

# the stores on other versions of PostgreSQL: `just test-postgres 14 18`
test-postgres *majors:
    ./scripts/test-postgres {{majors}}

# each fuzz target for so long; `just fuzz 600 frames` for some
fuzz seconds="60" *targets:
    ./scripts/fuzz {{seconds}} {{targets}}

# the ledger tests with so many seeds for each kind of trouble, from the first on (a test has eight minutes in all)
ledger seeds="50" first="1":
    MINIUM_TEST_SEEDS={{seeds}} MINIUM_TEST_SEED={{first}} ./scripts/test ledger::trouble

# mixed load for so many minutes; fails when the node grows
soak minutes="30":
    ./scripts/soak {{minutes}}

# a shell with a throwaway PostgreSQL at $MINIUM_TEST_POSTGRES
db:
    ./scripts/with-postgres bash

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# licences, advisories, who may use what
deny:
    cargo deny check
