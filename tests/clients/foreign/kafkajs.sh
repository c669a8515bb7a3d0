#!/usr/bin/env bash
# kafkajs from npm. Its package carries no tests, so that these are ours: what its own suites cover of producers, consumers,
# groups and administration, in kafkajs.js.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"

VERSION=2.2.4
SOURCE=$CACHE/kafkajs-$VERSION

install_suite() {
    [ -e "$SOURCE/complete" ] && return 0
    command -v node >/dev/null && command -v npm >/dev/null || return 1
    rm -rf "$SOURCE" && mkdir -p "$SOURCE" && echo '{"private":true}' >"$SOURCE/package.json" &&
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$SOURCE" "kafkajs@$VERSION" >&2 &&
        touch "$SOURCE/complete"
}

install_suite || cannot "Node.js or npm is missing"
start_cluster
KAFKAJS_NO_PARTITIONER_WARNING=1 NODE_PATH=$SOURCE/node_modules bounded 300 node "$HERE/foreign/kafkajs.js" >>"$RESULTS" ||
    say "kafkajs.js ended with $?"
verdict $VERSION
