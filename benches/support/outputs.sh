# Prints what a command of kind $1 would, different for each number $2: the kinds of output that a coding task meets, most
# of 8 KB. The same bytes wherever it runs; POSIX tools only.
kind=$1 seed=$2
awk -v kind="$kind" -v seed="$seed" '
function next_number(limit) { state = (state * 69069 + 12345) % 2147483648; return int(state / 65536) % limit }
function word() { return words[next_number(count) + 1] }
function name() { return word() "_" word() }
function listing(i) { for (i = 0; i < 60; i++) printf "-rw-r--r-- 1 agent agent %6d Nov 29 20:%02d %s.py\n", next_number(90000), next_number(60), name() }
function source(i) {
    for (i = 0; i < 46; i++)
        printf "def %s(%s, %s):\n    \"\"\"Returns the %s of the %s.\"\"\"\n    if %s.%s is None:\n        return \"%s\"\n    return %s[%d] + %s(%s)\n\n", \
            name(), word(), word(), word(), word(), word(), word(), word(), word(), next_number(99), name(), word()
}
function install(i) {
    for (i = 0; i < 30; i++) printf "Collecting %s-%s\n  Downloading %s-%d.%d.%d-py3-none-any.whl (%d kB)\n", word(), word(), word(), next_number(9), next_number(20), next_number(9), next_number(900)
    for (i = 0; i <= 100; i += 2) printf "\r%3d%% [%-50s] %d.%dMB", i, substr(bar, 1, i / 2), i, next_number(10)
    print "\nSuccessfully installed 30 packages"
}
function build(i) {
    for (i = 0; i < 230; i++) {
        printf "   Compiling %s-%s v%d.%d.%d\n", word(), word(), next_number(3), next_number(30), next_number(9)
        if (i == 90) printf "warning: unused variable: `%s`\n  --> src/%s.rs:%d:9\n", word(), name(), next_number(300)
    }
    print "    Finished `dev` profile [unoptimized + debuginfo] target(s) in 41.12s"
}
function tests(failing, i) {
    print "============================= test session starts =============================="
    for (i = 0; i < 130; i++) printf "tests/test_%s.py::test_%s_%s %s [%3d%%]\n", word(), word(), name(), (failing && i == 70 ? "FAILED" : "PASSED"), i * 100 / 129
    if (!failing) { print "============================= 130 passed in 3.41s =============================="; return }
    print "=================================== FAILURES ==================================="
    for (i = 0; i < 12; i++) printf "    %s = %s(%s)\n", word(), name(), word()
    printf "E       AssertionError: assert %d == %d\n\ntests/test_%s.py:%d: AssertionError\n", next_number(99), next_number(99), word(), next_number(200)
    print "======================== 1 failed, 129 passed in 3.52s ========================="
}
function grep(i) { for (i = 0; i < 116; i++) printf "src/%s/%s.py:%d:    %s = self.%s(%s)\n", word(), name(), next_number(900), word(), name(), word() }
function logs(i) { for (i = 0; i < 260; i++) printf "2026-11-29 20:%02d:%02d INFO %s.%s %s took %d ms for %s\n", i / 60, i % 60, word(), word(), name(), next_number(500), word() }
function diff(i) {
    for (i = 0; i < 60; i++) printf "@@ -%d,6 +%d,7 @@ def %s\n     %s = %s(%s)\n-    return %s\n+    %s = %s.%s\n+    return %s\n", \
        next_number(900), next_number(900), name(), word(), name(), word(), word(), word(), word(), word(), word()
}
BEGIN {
    count = split("account amount answer branch budget cache client column cookie cursor delta digest engine event field filter folder frame handle header index input journal label ledger limit member method module number object option order owner packet parser patch policy prompt query queue reader record region report result route sample schema score secret sender series signal socket source stream string subject symbol target tenant thread ticket token trace update upload vector vendor window worker writer", words, " ")
    bar = "##################################################"
    state = seed * 7919 + 17
    if (kind == "listing") listing()
    if (kind == "source") source()
    if (kind == "install") install()
    if (kind == "build") build()
    if (kind == "tests") tests(0)
    if (kind == "failing") tests(1)
    if (kind == "grep") grep()
    if (kind == "logs") logs()
    if (kind == "diff") diff()
    if (kind == "short") print "ok"
}'
