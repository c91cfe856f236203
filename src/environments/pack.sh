# Writes what a setup has left in the agent's folders as an archive: all of its home but the server's logs, and of the
# workspace all that is in no repository, and of NAME what git does not track. Run as root in a workshop by making.rs:
#   sh -c SCRIPT pack NAME
name=$1
cd / || exit 1
{
    find home/agent -mindepth 1 -maxdepth 1 ! -name .cache -print0
    [ -d home/agent/.cache ] && find home/agent/.cache -mindepth 1 -maxdepth 1 ! -name matrix-agent -print0
    find workspace -mindepth 1 -maxdepth 1 ! -name .ipc ! -name "$name" -print0
    git -c safe.directory='*' -c core.fsmonitor=false -C "workspace/$name" ls-files --others --directory -z |
        sed -z "s|^|workspace/$name/|"
} 2>/dev/null | tar --create --file=- --format=gnu --null --verbatim-files-from --files-from=- --one-file-system 2>/dev/null
