# Writes all that was changed in a workshop's system since $BEGUN was made as an archive. Run as root by making.rs:
#   sh -c SCRIPT pack BEGUN
begun=$1
cd / || exit 1
find . -mindepth 1 -xdev '(' -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./var/tmp \
    -o -path ./workspace -o -path ./home -o -path ./var/log -o -path ./var/cache/apt -o -path ./var/lib/apt/lists \
    -o -path ".$begun" ')' -prune -o -cnewer "$begun" ! -type s ! -type p -print0 2>/dev/null |
    tar --create --file=- --format=gnu --numeric-owner --no-recursion --null --verbatim-files-from --files-from=- 2>/dev/null
