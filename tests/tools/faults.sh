#!/bin/sh
# One line for each fault of docs/faults.md: how many tests carry its id. Reads the sources, builds nothing.
#
#   tests/tools/faults.sh      REG-1  3 tests
#                              REG-2  none yet
#
# A test is a `fn reg_1_...` below a test attribute. One whose parameter is a TestEtcd is run by the macro
# `etcd_tests!` on several etcds, and counts once for each test into which the macro expands it.
set -eu
cd "$(dirname "$0")/../.."

each=$(awk '/macro_rules! etcd_tests/ {inside = 1} inside && /#\[(tokio::)?test/ {n++} inside && /^}/ {inside = 0}
            END {print n + 0}' tests/src/etcd.rs)

find . -name '*.rs' -not -path '*/target/*' -exec awk -v each="$each" '
    FNR == 1 {attribute = 0; open = ""}
    /^[ \t]*#\[([a-z_]+::)*test[^a-z_]/ {attribute = 1}
    # A signature may go over several lines: it is read up to its body.
    open == "" && match($0, /(^|[ \t])fn [a-z]+_[0-9]+_/) {
        split(substr($0, RSTART, RLENGTH), word, /[ \t]*fn |_/)
        open = toupper(word[2]) "-" word[3]
        etcd = 0
    }
    open != "" && /TestEtcd/ {etcd = 1}
    open != "" && /[{;]/ {
        if (etcd) print open, each; else if (attribute) print open, 1
        open = ""
    }
    /(^|[ \t])fn / {attribute = 0}
' {} + | awk '
    FNR == NR {tests[$1] += $2; next}
    match($0, /^\| [A-Z]+-[0-9]+ /) {
        n = tests[$2]
        printf "%s  %s\n", $2, n == 0 ? "none yet" : n == 1 ? "1 test" : n " tests"
    }
' - docs/faults.md
