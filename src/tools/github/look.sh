# What a clone is, for a pull request. Run in the sandbox by look.rs:
#   sh -c SCRIPT github MARK PATH TRAILER
# Prints lines that begin with MARK. With a trailer, the last commit gets it, unless it has left this sandbox already, and what a
# push would change is told: a sum, and the first files.
mark=$1 path=$2 trailer=$3
say() { printf '%s %s\n' "$mark" "$*"; }
export LC_ALL=C.UTF-8 GIT_TERMINAL_PROMPT=0
cd "$path" 2> /dev/null || { say no-folder; exit 0; }
root=$(git rev-parse --show-toplevel 2> /dev/null)
if [ -z "$root" ]; then
    # Whoever gives no path means the only clone.
    set -- "$path"/*/.git
    [ $# -gt 1 ] && { say many; exit 0; }
    [ -e "$1" ] || { say no-repository; exit 0; }
    root=${1%/.git}
fi
cd "$root" || { say no-folder; exit 0; }
say root "$root"
say remote "$(git config --get remote.origin.url)"
git rev-parse -q --verify HEAD > /dev/null || { say no-commit; exit 0; }
say dirty "$(git status --porcelain 2> /dev/null | wc -l)"
if [ -n "$trailer" ] && [ -z "$(git branch -r --contains HEAD 2> /dev/null)" ] \
    && ! git log -1 --format=%B | grep -qF -e "$trailer"; then
    # The message alone: what is staged stays staged.
    git commit -q --amend --only --no-edit --no-verify --trailer "$trailer" > /dev/null 2>&1
fi
branch=$(git symbolic-ref -q --short HEAD)
if [ -n "$trailer" ]; then
    # Against what GitHub has of the branch or, before its first push, of what it came from; else against nothing.
    base=$(git merge-base HEAD "refs/remotes/origin/$branch" 2> /dev/null) \
        || base=$(git merge-base HEAD refs/remotes/origin/HEAD 2> /dev/null) \
        || base=$(git hash-object -t tree /dev/null)
    say commits "$(git rev-list --count HEAD --not --remotes=origin)"
    git diff --numstat --no-renames --no-ext-diff --no-textconv "$base" HEAD | awk -F '\t' -v mark="$mark" '
        { files++; added += $1; removed += $2 }
        files <= 10 { print mark, "change", $1 + 0, $2 + 0, $3 }
        END { print mark, "changed", files + 0, added + 0, removed + 0 }'
fi
say branch "$branch"
say head "$(git rev-parse HEAD)"
