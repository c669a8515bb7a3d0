# What the scripts of foreign suites share: foreign/NAME.sh sources this, and `run NAME` runs it.
#
# Such a script installs its suite by package name into CACHE, starts a cluster, runs the suite, writes a line per test
# with `result`, and ends with `verdict`, which compares them with expected/NAME.txt (judge.py says how):
#
#     . "$(dirname "$0")/../foreign.sh"
#     need_python || cannot "no Python"
#     start_cluster
#     bounded 600 run-the-suite --broker "$BOOTSTRAP" ... | while ...; do result pass "$id"; done
#     verdict 1.2.3
#
# Environment from `run`: TARGET (the folder with the programs), WORK (a folder for files that goes with the run), SUITE
# (its name), RECORD (the folder for the counts), BOOTSTRAP (when the cluster is not ours), FULL, ONLY and ORACLE.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
: "${SUITE:?this is run by tests/clients/run}"
RESULTS=$WORK/$SUITE.results
: >"$RESULTS"
STARTED=()
trap 'end_all' EXIT

# end_all: ends every process begun with `background` and the clusters.
end_all() {
    local pid
    for pid in "${STARTED[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${STARTED[@]}"; do wait "$pid" 2>/dev/null || true; done
    STARTED=()
}

# background COMMAND...: starts it; it ends with the suite.
background() { "$@" & STARTED+=($!); }

# start_cluster [MESH OPTION...]: a fresh cluster of three daemons unless `run` was given one. Sets BOOTSTRAP, URL and
# CLUSTER (its folder; CLUSTER/one/ID/log is what a daemon says). `--config TOML` adds to the daemons' configuration.
# A second call ends the first cluster.
clusters=0 OURS=''
start_cluster() {
    if [ -n "${BOOTSTRAP:-}" ] && [ -z "$OURS" ]; then return 0; fi
    [ -z "$OURS" ] || { exec 8>&-; wait "$OURS" 2>/dev/null || true; }
    clusters=$((clusters + 1))
    CLUSTER=$WORK/$SUITE.cluster.$clusters
    mkdir -p "$CLUSTER"
    mkfifo "$CLUSTER/in"
    "$TARGET/mesh" --one --folder "$CLUSTER" "$@" <"$CLUSTER/in" >"$CLUSTER/out" 2>"$CLUSTER/err" &
    OURS=$!
    STARTED+=("$OURS")
    exec 8>"$CLUSTER/in"
    until_true 90 grep -q '^ready' "$CLUSTER/out" || { cat "$CLUSTER/err" >&2; return 1; }
    BOOTSTRAP=$(sed -n 's/^one //p' "$CLUSTER/out")
    URL=$(sed -n 's/^one-url //p' "$CLUSTER/out")
    export BOOTSTRAP URL CLUSTER
}

# result pass|fail|skip ID [DETAIL]
result() { printf '%s\t%s\t%s\n' "$1" "$2" "$(printf '%s' "${3:-}" | tr '\n\t' '  ' | cut -c1-300)" >>"$RESULTS"; }

# bounded SECONDS COMMAND...: ends it, and what it started, after that time.
bounded() { timeout --kill-after=10 "$@" 8>&-; }

# cannot WHY: this machine cannot run the suite; `run` counts it as skipped.
cannot() { echo "skipped $SUITE: $*"; exit 77; }

# verdict VERSION: compares and prints; the script's exit code is its.
verdict() { python3 "$HERE/judge.py" "$SUITE" "$1" "$RESULTS" "$RECORD/$SUITE.json"; }

# python_with NAME PACKAGE...: sets PYTHON to an interpreter that has these packages, kept in the cache under NAME.
python_with() {
    local folder=$CACHE/$1; shift
    PYTHON=$folder/bin/python
    [ -e "$folder/complete" ] && [ "$(cat "$folder/complete")" = "$*" ] && return 0
    command -v python3 >/dev/null || return 1
    rm -rf "$folder" && mkdir -p "$CACHE"
    python3 -m venv "$folder" && "$PYTHON" -m pip install -q "$@" >&2 && echo "$*" >"$folder/complete"
}

# pytest_results XML: writes the results of a `pytest --junit-xml` run: `file::test[parameter]`, without folders.
pytest_results() { python3 "$HERE/junit.py" "$1" >>"$RESULTS"; }
