# What the files of the work are like at one time and at another. Run in the sandbox by survey.rs:
#   sh -c SCRIPT survey MARK TASK CALL begin      keeps how they are, as the call's beginning (and the task's, if it is new)
#   sh -c SCRIPT survey MARK TASK CALL changes    prints what has changed since the call began
#   sh -c SCRIPT survey MARK TASK CALL diff       prints how that looks which has changed since the task began
#   sh -c SCRIPT survey MARK TASK CALL so-far     likewise since the call began
# Each repository in the workspace, and the workspace itself, has a second one here with trees of its files, so that nothing
# in the work's own is touched, and what is not under git is seen too.
mark=$1 task=$2 call=$3 what=$4
work=/workspace
store=$HOME/.cache/matrix-agent/trees
# Larger files that git does not know, and more files than this, are not looked at.
most_bytes=1024k most_files=10000 most_repositories=20
most_kilobytes=200000
command -v git > /dev/null || { echo "$mark no-git"; exit 0; }
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
export GIT_OPTIONAL_LOCKS=0 LC_ALL=C.UTF-8

repositories() {
    if [ -e "$work/.git" ]; then
        echo "$work"
        return
    fi
    for folder in "$work"/*/; do
        [ ! -e "$folder.git" ] || echo "${folder%/}"
    done | head -n "$most_repositories"
    echo "$work"
}

# trees ROOT ARGUMENT…: git in the second repository of ROOT.
trees() {
    files=$1
    shift
    git -c core.quotePath=false -c core.fsmonitor=false --git-dir="$dir" --work-tree="$files" "$@"
}

# take ROOT: sets `tree` to the tree of its files as they are.
take() {
    dir=$store/$(printf %s "$1" | git hash-object --stdin)
    tree=
    # Of no use for long; the task that was begun loses its beginning then.
    if [ "$what" = begin ] && [ "$(du -sk "$dir" 2> /dev/null | cut -f 1)" -gt "$most_kilobytes" ] 2> /dev/null; then
        rm -rf "$dir"
    fi
    if [ ! -e "$dir/HEAD" ]; then
        git init -q --bare "$dir" 2> /dev/null || return 1
        if [ -d "$1/.git/objects" ]; then
            # What is committed is not stored again, and what has not changed since is not read again.
            echo "$1/.git/objects" > "$dir/objects/info/alternates"
            cp "$1/.git/index" "$dir/index" 2> /dev/null
        fi
    fi
    rm -f "$dir/index.lock"
    {
        printf '%s\n' .git .ipc node_modules .venv venv __pycache__ .pytest_cache .ruff_cache target
        if [ "$1" = "$work" ]; then
            # What the server writes there itself.
            [ -e "$work/.git" ] || printf '%s\n' /GEMINI.md /status.md
            repositories | sed -n "s|^$work/|/|p"
        fi
        find "$1" -xdev \( -name .git -o -name node_modules -o -name .venv -o -name target \) -prune \
            -o -type f -size "+$most_bytes" -print 2> /dev/null | head -n 1000 | sed -e "s|^$1||" -e 's|[][*?!\\# ]|\\&|g'
    } > "$dir/info/exclude"
    new=$(cd "$1" && trees . ls-files --others --exclude-standard | head -n "$((most_files + 1))" | wc -l)
    if [ "$new" -gt "$most_files" ]; then
        echo "$mark many $1"
        return 1
    fi
    (cd "$1" && trees . add --all --ignore-errors . 2> /dev/null)
    tree=$(trees "$1" write-tree 2> /dev/null) && [ -n "$tree" ]
}

# since NAME: sets `base` to a tree that was kept; to the empty one if none was.
since() {
    base=$(git --git-dir="$dir" rev-parse -q --verify "refs/$1") ||
        base=$(git --git-dir="$dir" hash-object -w -t tree /dev/null)
}

repositories | while IFS= read -r root; do
    take "$root" || continue
    case $what in
        begin)
            git --git-dir="$dir" update-ref "refs/call/$call" "$tree"
            git --git-dir="$dir" rev-parse -q --verify "refs/task/$task" > /dev/null ||
                git --git-dir="$dir" update-ref "refs/task/$task" "$tree"
            ;;
        changes)
            since "call/$call"
            [ "$base" != "$tree" ] || continue
            echo "$mark root $root"
            trees "$root" diff --no-ext-diff --no-textconv --no-renames --numstat "$base" "$tree" | head -n 300
            ;;
        so-far)
            since "call/$call"
            [ "$base" != "$tree" ] || continue
            echo "$mark root $root"
            trees "$root" diff --no-ext-diff --no-textconv "$base" "$tree" | head -c 400000
            ;;
        diff)
            since "task/$task"
            if [ "$base" = "$tree" ] && [ -e "$root/.git" ]; then
                # Nothing was changed in this task: what the branch has beyond its origin, what is not committed, or else the last commit.
                for other in '@{upstream}' origin/HEAD origin/main origin/master main master; do
                    base=$(git -C "$root" merge-base HEAD "$other" 2> /dev/null) && break
                done
                [ -n "$base" ] || base=$(git -C "$root" rev-parse -q --verify HEAD) || continue
                if [ "$(git -C "$root" rev-parse "$base^{tree}" 2> /dev/null)" = "$tree" ]; then
                    base=$(git -C "$root" rev-parse -q --verify HEAD~1) || continue
                fi
            fi
            [ "$base" != "$tree" ] || continue
            echo "$mark root $root"
            trees "$root" diff --no-ext-diff --no-textconv "$base" "$tree" | head -c 400000
            ;;
    esac
done
