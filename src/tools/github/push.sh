# Pushes a commit to a branch of the agents. Run in the sandbox by push.rs:
#   sh -c SCRIPT github ROOT COMMIT BRANCH
# The clone goes on in that branch, so that the next commits belong to it.
root=$1 commit=$2 branch=$3
export LC_ALL=C.UTF-8 GIT_TERMINAL_PROMPT=0
cd "$root" || exit 1
[ "$(git symbolic-ref -q --short HEAD)" = "$branch" ] || git switch -q -c "$branch" 2> /dev/null || git switch -q "$branch" || :
exec git push origin "$commit:refs/heads/$branch"
