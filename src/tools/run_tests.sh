# Lints and tests the project in $1 with the command $2, or with the one it finds; run by `run_tests` inside the sandbox.
# Lines that begin with $3 are for the server: dir, lint, lint-exit, test, test-exit, none, many.
set -u
mark=$3
say() { printf '%s %s\n' "$mark" "$*"; }
have() { command -v "$1" >/dev/null 2>&1; }
any() { # is there one of these (patterns are expanded by the caller)?
    for file in "$@"; do [ -e "$file" ] && return 0; done
    return 1
}
python_here() {
    any pyproject.toml setup.py setup.cfg requirements*.txt pytest.ini tox.ini conftest.py Pipfile uv.lock ruff.toml .ruff.toml \
        ./*.py tests/*.py test/*.py
}
project_here() {
    any Makefile GNUmakefile justfile Cargo.toml go.mod package.json deno.json pom.xml build.gradle build.gradle.kts || python_here
}
target() { grep -Eq '^test[[:space:]]*:([^=]|$)' "$@" 2>/dev/null; }
npm_test() { # the script that package.json declares, unless it is the one that npm puts there
    node -e 'const test = (JSON.parse(require("fs").readFileSync("package.json")).scripts ?? {}).test ?? "";
        process.exit(test && !test.includes("no test specified") ? 0 : 1)' 2>/dev/null
}
python_command() {
    for venv in .venv venv; do
        [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import pytest' 2>/dev/null && { echo "$venv/bin/python -m pytest -v"; return; }
    done
    if [ -e uv.lock ] && have uv; then echo 'uv run pytest -v'
    elif [ -e poetry.lock ] && have poetry; then echo 'poetry run pytest -v'
    elif python3 -c 'import pytest' 2>/dev/null; then echo 'python3 -m pytest -v' # also finds modules in the project's root
    elif have pytest; then echo 'pytest -v'
    else echo 'python3 -m unittest -v'
    fi
}
find_command() { # the project's own word first, then its language's habit
    if target Makefile GNUmakefile makefile && have make; then echo 'make test'
    elif { target justfile || target Justfile; } && have just; then echo 'just test'
    elif [ -e Cargo.toml ]; then echo 'cargo test'
    elif [ -e go.mod ]; then echo 'go test ./...'
    elif [ -e package.json ] && npm_test; then
        if [ -e pnpm-lock.yaml ]; then echo 'pnpm test'
        elif [ -e yarn.lock ]; then echo 'yarn test'
        elif any bun.lock bun.lockb; then echo 'bun run test'
        else echo 'npm test'
        fi
    elif python_here; then python_command
    elif any deno.json deno.jsonc; then echo 'deno test'
    elif [ -x mvnw ]; then echo './mvnw -B test'
    elif [ -e pom.xml ]; then echo 'mvn -B test'
    elif [ -x gradlew ]; then echo './gradlew test'
    elif any build.gradle build.gradle.kts; then echo 'gradle test'
    elif [ -x scripts/test.sh ]; then echo './scripts/test.sh'
    elif [ -x test.sh ]; then echo './test.sh'
    fi
}

cd -- "$1" || exit 66
if [ -z "$2" ] && ! project_here; then
    # A clone one folder down is what is meant, if there is but one.
    set -- "$1" "$2" "$3" "$PWD"
    only='' count=0
    for folder in ./*/; do
        cd -- "$folder" 2>/dev/null || continue
        if project_here; then count=$((count + 1)) only="$only $(basename "$folder")"; last=$PWD; fi
        cd -- "$4" || exit 66
    done
    if [ "$count" -gt 1 ]; then say many "$only"; exit 67; fi
    [ "$count" -eq 1 ] && { cd -- "$last" || exit 66; }
fi
say dir "$PWD"
export CI=1

lint=0
if python_here; then
    say lint 'ruff check .'
    if have ruff; then
        found=$(ruff check . 2>&1)
        lint=$?
        if [ "${#found}" -gt 6000 ]; then # so that the tests stay in view
            printf '%.4500s\n[…]\n' "$found"
            found=$(printf '%s' "$found" | tail -c 1000)
        fi
        printf '%s\n' "$found"
        say lint-exit "$lint"
    else
        say lint-exit missing
    fi
fi

command=${2:-$(find_command)}
if [ -z "$command" ]; then say none; exit 68; fi
say test "$command"
shell=$(command -v bash || echo sh)
"$shell" -c "$command"
code=$?
say test-exit "$code"
[ "$lint" -eq 0 ] && exit "$code"
exit 1
