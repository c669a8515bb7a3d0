#!/usr/bin/env bash
# franz-go's own tests of pkg/kgo, from its Go module: those that need a broker, which are the ones in expected/franz-go.txt.
#
# Records and groups: producing, consuming, regular expressions, pausing, purging, and chains of groups whose members come
# and go. FULL sends ten times as many records through those chains.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"

VERSION=v1.22.2
SOURCE=$CACHE/franz-go-$VERSION
records=50000 limit=300
[ -z "$FULL" ] || records=500000 limit=1200

install_suite() {
    [ -e "$SOURCE/complete" ] && return 0
    need_go || return 1
    local module
    rm -rf "$SOURCE" && mkdir -p "$SOURCE/module"
    module=$(cd "$SOURCE" && GOFLAGS=-mod=mod "$GO" mod download -json "github.com/twmb/franz-go@$VERSION" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])') || return 1
    # The module cache is read-only, and tests write beside their sources.
    cp -r "$module/." "$SOURCE/module" && chmod -R u+w "$SOURCE/module" &&
        (cd "$SOURCE/module" && nice "$GO" test -c -o "$SOURCE/kgo.test" ./pkg/kgo) && touch "$SOURCE/complete"
}

# kgo SECONDS TESTS [EXCEPT]: one process of tests, by the patterns of go test.
kgo() {
    local log=$WORK/franz-go.log
    (
        cd "$SOURCE/module/pkg/kgo"
        KGO_SEEDS=$BOOTSTRAP KGO_TEST_RF=3 KGO_TEST_RECORDS=$records KGO_LOG_LEVEL=none bounded $(($1 + 30)) \
            nice "$SOURCE/kgo.test" -test.v -test.timeout "${1}s" -test.run "^($2)$" -test.skip "^(${3:-})$" >"$log" 2>&1
    ) || true
    python3 "$HERE/foreign/go_results.py" "$log" >>"$RESULTS"
    cat "$log" >>"$WORK/franz-go.all.log"
}

install_suite || cannot "Go 1.26 or franz-go's module cannot be had"
start_cluster
if [ -n "$ONLY" ]; then
    kgo $limit "${ONLY// /|}"
else
    tests=$(sed -nE 's/^(full )?(pass|fail|skip|flaky) ([^ /]+)( .*)?$/\3/p' "$HERE/expected/franz-go.txt" | paste -sd'|')
    kgo 240 "$tests" 'TestGroupETL|TestTxnEtl'
    kgo $limit TestGroupETL
    # Without transactions this does not end by itself.
    kgo 20 TestTxnEtl
fi
verdict $VERSION
