# The commands of the house; scripts/test.sh runs all the checks in one go.

# Lists them.
default:
    @just --list

# Compiles and lints: the quick look while writing.
check:
    cargo clippy --workspace --all-targets

# Formats everything.
fmt:
    cargo fmt --all

# Runs the tests that match, or all: `just test sandbox`.
test *filter:
    cargo nextest run --workspace {{ filter }}

# Everything that CI checks.
ci:
    scripts/test.sh

# Checks licenses, bans and sources of the dependencies.
deny:
    cargo deny check bans licenses sources

# Asks the advisory database about the dependencies.
audit:
    cargo deny check advisories

# Builds the sandbox image if it changed.
image:
    scripts/build-image.sh

# Makes a book of docs/, in target/book.
book:
    mdbook build docs

# Measures, and prints the tables of README.md.
bench:
    cargo bench --profile release

# Fuzzes what reads hostile bytes, each target for some seconds: `just fuzz`, `just fuzz 600 stream`.
fuzz seconds="60" *targets:
    scripts/fuzz.sh {{ seconds }} {{ targets }}

# Talks to the agent in the terminal, with the model of `.env`.
chat *arguments:
    cargo run --profile quick --bin matrix-agent -- {{ if path_exists(".env") == "true" { "--env-file .env" } else { "" } }} chat {{ arguments }}
