#!/usr/bin/env bash
# Prune the digits network through a service of our own and show what came of it.
#
# The service runs on a free loopback port with a temporary data folder and is ended, by its process
# id, however this script ends. What comes back lies in demo-output/ (or DEMO_OUTPUT). Exits
# non-zero when anything is off, a loss of accuracy above 2 points included.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly python=${DEMO_PYTHON:-.venv/bin/python}
readonly example=examples/digits
readonly output=${DEMO_OUTPUT:-demo-output}
# Other options for the run: DEMO_OPTIONS='{"target":{"max_macs_ratio":0.8}}' make demo
readonly options=${DEMO_OPTIONS:-'{"target":{"max_macs_ratio":0.6}}'}
readonly start_seconds=60

work=$(mktemp -d)
server=

stop() {
    local status=$?
    trap - EXIT
    if [[ -n $server ]] && kill -TERM "$server" 2>/dev/null; then
        # The server ends its own children; the time is more than it grants them.
        for _ in $(seq 150); do
            kill -0 "$server" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "demo: $*" >&2
    if [[ -s $work/server.log ]]; then
        echo "demo: the end of the server's log:" >&2
        tail -n 20 "$work/server.log" >&2
    fi
    exit 1
}

# Loopback never goes through a proxy.
fetch() {
    curl --silent --show-error --noproxy '*' --write-out '%{http_code}' "$@"
}

start_server() {
    # Port 0 takes a free one, which the log names: no race for it. The log is there before the
    # server's process is, which opens it in its own time.
    : >"$work/server.log"
    HOST=127.0.0.1 PORT=0 DATA_DIR="$work/data" LOG_LEVEL=info \
        "$python" -m service >"$work/server.log" 2>&1 &
    server=$!
    local deadline=$((SECONDS + start_seconds))
    while ((SECONDS < deadline)); do
        kill -0 "$server" 2>/dev/null || fail "the service ended while it was starting."
        url=$(sed -nE 's|.*running on (http://127\.0\.0\.1:[0-9]+).*|\1|p' "$work/server.log" | head -n 1)
        if [[ -n $url && $(fetch --output /dev/null "$url/readyz" 2>/dev/null || true) == 200 ]]; then
            return
        fi
        sleep 0.1
    done
    fail "the service was not ready after $start_seconds s."
}

prune() {
    echo "curl -F model=@$example/digits.onnx -F bundle=@$example/calibration.npz \\"
    echo "     -F 'options=$options' $url/v1/prune -o $output/pruned.onnx"
    local status
    status=$(fetch -F "model=@$example/digits.onnx" -F "bundle=@$example/calibration.npz" \
        -F "options=$options" "$url/v1/prune" --dump-header "$work/headers" \
        --output "$work/reply") || fail "the request did not come through."
    if [[ $status != 200 ]]; then
        head -c 4000 "$work/reply" >&2
        echo >&2
        fail "POST /v1/prune answered $status, not 200."
    fi
    mv "$work/reply" "$output/pruned.onnx"
}

# The reply's Link header names the report of the job that made it.
download_report() {
    local path status
    path=$(tr -d '\r' <"$work/headers" | grep -i '^link:' \
        | sed -nE 's|.*<([^>]+)>; *rel="describedby".*|\1|p') || true
    [[ -n $path ]] || fail "the reply has no Link header to the report."
    status=$(fetch --output "$output/report.json" "$url$path") || fail "no answer for $path."
    [[ $status == 200 ]] || fail "GET $path answered $status, not 200."
}

mkdir -p "$output"
rm -f "$output/pruned.onnx" "$output/report.json"
start_server
prune
download_report
"$python" scripts/demo_table.py --before "$example/digits.onnx" --after "$output/pruned.onnx" \
    --report "$output/report.json" --test "$example/test.npz" \
    || fail "the result is not what it should be."
