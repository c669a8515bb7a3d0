#!/usr/bin/env bash
# What confluent-kafka's integration tests cover, with that client. No package carries those tests themselves.
set -euo pipefail
. "$(dirname "$0")/../foreign.sh"

need_python || cannot "confluent-kafka cannot be installed"
start_cluster --config $'[topic_defaults]\n"group.initial.rebalance.delay.ms" = 0\n'
export RESULTS SOURCE=$BOOTSTRAP PYTHONPATH=$HERE
for part in producer consumer admin; do
    # A word of its own: each part counts its topics from 0.
    RUN=$part$RANDOM bounded 600 "$VENV/bin/python" "$HERE/foreign/confluent/$part.py" >&2 || result fail "$part::ended" "exit code $?"
done
verdict "$(sed -n 's/^confluent-kafka==//p' "$HERE/requirements.txt")"
