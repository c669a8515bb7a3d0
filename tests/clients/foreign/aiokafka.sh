#!/usr/bin/env bash
# What aiokafka's core tests cover, with that client, which speaks the oldest versions of the protocol. Its own tests come in
# no package.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"

VERSION=0.14.0
python_with "aiokafka-$VERSION" "aiokafka[snappy,lz4,zstd]==$VERSION" || cannot "aiokafka cannot be installed"
start_cluster --config $'[topic_defaults]\n"group.initial.rebalance.delay.ms" = 0\n'
export RESULTS SOURCE=$BOOTSTRAP PYTHONPATH=$HERE
bounded 400 "$PYTHON" "$HERE/foreign/aiokafka_suite.py" >&2 || result fail "ended" "exit code $?"
verdict "$VERSION"
