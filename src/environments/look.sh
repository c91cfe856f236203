# Tells of the repositories in the workspace that say how they are set up, and in what state that is. Run in a sandbox by
# place.rs:
#   sh -c SCRIPT look MARK [NAME]
# One line for each: MARK, folder, script, `system` where another is for root (else `-`), remote and a digest, parted by
# tabs. Without NAME those are left out that have what they need, or were tried. Only what git tracks counts, as it
# stands in the index.
mark=$1
only=$2
export LC_ALL=C.UTF-8 GIT_OPTIONAL_LOCKS=0

of() {
    git -C "$folder" -c core.fsmonitor=false -c core.quotePath=false "$@" 2>/dev/null
}

for folder in /workspace/*/; do
    folder=${folder%/}
    name=${folder#/workspace/}
    [ -d "$folder/.git" ] || continue
    if [ -z "$only" ] && read -r key kind _ 2>/dev/null < "$folder/.git/matrix-agent-environment"; then
        # What root installed is lost when the container is made anew.
        { [ "$kind" = system ] && [ ! -e "/var/lib/matrix-agent/$key" ]; } || continue
    fi
    [ -n "$only" ] && [ "$name" != "$only" ] && continue
    script=.matrix-agent/setup.sh
    if [ -z "$(of ls-files -- ":(literal)$script")" ]; then
        script=$(of show :AGENTS.md | head -c 65536 | sed -n 's/^[-* ]*[Ss]etup: *`\{0,1\}\([A-Za-z0-9._/-]*\).*/\1/p' | head -n 1)
        [ -n "$script" ] || continue
        [ -n "$(of ls-files -- ":(literal)$script")" ] || continue
    fi
    system=-
    [ -n "$(of ls-files -- ':(literal).matrix-agent/system.sh')" ] && system=system
    digest=$(of ls-files --stage -- ":(literal)$script" ':(literal).matrix-agent/system.sh' \
        ':(glob)**/package-lock.json' ':(glob)**/npm-shrinkwrap.json' ':(glob)**/yarn.lock' ':(glob)**/pnpm-lock.yaml' \
        ':(glob)**/bun.lock' ':(glob)**/bun.lockb' ':(glob)**/deno.lock' ':(glob)**/requirements*.txt' \
        ':(glob)**/poetry.lock' ':(glob)**/uv.lock' ':(glob)**/pdm.lock' ':(glob)**/Pipfile.lock' \
        ':(glob)**/Cargo.lock' ':(glob)**/go.sum' ':(glob)**/Gemfile.lock' ':(glob)**/composer.lock' \
        ':(glob)**/mix.lock' | sha256sum | cut -d ' ' -f 1)
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$mark" "$name" "$script" "$system" "$(of config --get remote.origin.url)" "$digest"
done | head -c 65536
