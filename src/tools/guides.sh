# Prints what the repositories of the workspace, and the workspace itself, want those to know who work there. Run in the
# sandbox by guides.rs:
#   sh -c SCRIPT guides MARK
# A line `MARK FOLDER NAME` stands before each. Of a folder with both files the first counts.
mark=$1
export LC_ALL=C.UTF-8
for folder in /workspace /workspace/*/; do
    folder=${folder%/}
    for name in AGENTS.md CLAUDE.md; do
        [ -f "$folder/$name" ] || continue
        printf '\n%s %s %s\n' "$mark" "$name" "$folder"
        head -c 8192 "$folder/$name"
        break
    done
done | head -c 65536
