#!/usr/bin/env bash
# Check a running server with curl alone: smoke.sh [URL]. One OK line per check; exits non-zero at
# the first that fails. The digits model and bundle that it uploads stay on the server. Where the
# server has API keys, PRUNER_API_KEY is one with the scope `submit`.
set -euo pipefail

readonly url=${1:-http://127.0.0.1:8000}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly example=$root/examples/digits
work=$(mktemp -d)
readonly work
trap 'rm -rf "$work"' EXIT
# In a file: arguments show in the list of processes. mktemp made the folder for us alone.
printf '%s\n' "${PRUNER_API_KEY:+header = \"Authorization: Bearer $PRUNER_API_KEY\"}" >"$work/curlrc"

fail() {
    echo "FAILED $*" >&2
    if [[ -s $work/headers ]]; then
        head -n 20 "$work/headers" >&2
    fi
    if [[ -s $work/body ]]; then
        head -c 2000 "$work/body" | tr -c '[:print:]\n' '.' >&2
        echo >&2
    fi
    exit 1
}

# request STATUS PATH [curl arguments]: the body is then in $work/body, the headers in
# $work/headers. STATUS is a regular expression.
request() {
    local expected=$1 path=$2 status
    shift 2
    rm -f "$work/body" "$work/headers"
    status=$(curl --config "$work/curlrc" --silent --show-error --noproxy '127.0.0.1,localhost,::1' --max-time 600 \
        --output "$work/body" --dump-header "$work/headers" --write-out '%{http_code}' \
        "$@" "$url$path") || fail "$path: no answer from $url"
    [[ $status =~ ^($expected)$ ]] || fail "$path: answered $status, expected $expected"
}

# header NAME: its value in the last reply.
header() {
    tr -d '\r' <"$work/headers" | sed -nE "s|^$1: *(.*)|\1|Ip" | tail -n 1
}

# require WHAT PATTERN...: each is an extended regular expression with a match in the body.
require() {
    local what=$1 pattern
    shift
    for pattern in "$@"; do
        grep -qaE "$pattern" "$work/body" || fail "$what: the body has no match of $pattern"
    done
}

require_type() {
    local type
    type=$(header content-type)
    [[ $type == "$2"* ]] || fail "$1: content type is '$type', expected $2"
}

ok() {
    echo "OK  $*"
}

request 200 /healthz
require healthz '"status": *"ok"'
ok "GET /healthz"

request 200 /readyz
require readyz '"status": *"ready"'
ok "GET /readyz"

request 200 /v1/options/schema
require "options schema" '"target"' '"min_filters"' '"recovery"'
ok "GET /v1/options/schema"

request 200 /v1/engines
require engines '"name": *"standard", *"works": *true' '"name": *"ort-training"'
engines=$(cat "$work/body")
ok "GET /v1/engines"

request 200 /openapi.json
require openapi '"/v1/prune"' '"/v1/models"'
ok "GET /openapi.json"

request 200 /docs
require_type docs text/html
if grep -qaE '(src|href)="(https?:)?//' "$work/body"; then
    fail "/docs: the page needs another host"
fi
ok "GET /docs (needs no other host)"

request 200 /metrics
require_type metrics text/plain
require metrics '^# TYPE '
ok "GET /metrics"

request '200|201' /v1/models -F "file=@$example/digits.onnx"
model_path=$(header location)
[[ $model_path =~ ^/v1/models/[0-9a-f]{64}$ ]] || fail "POST /v1/models: Location is '$model_path'"
require "POST /v1/models" '"inputs"'
ok "POST /v1/models"

request 200 "$model_path"
require "GET $model_path" '"image"'
ok "GET /v1/models/{id}"

request 200 "$model_path/channels"
require "GET $model_path/channels" 'conv1' 'conv2' 'conv3'
ok "GET /v1/models/{id}/channels"

request 200 /v1/prune -F "model=@$example/digits.onnx" -F "bundle=@$example/calibration.npz" \
    -F 'options={"target":{"filters":8}}'
cp "$work/body" "$work/pruned.onnx"
before=$(wc -c <"$example/digits.onnx")
after=$(wc -c <"$work/pruned.onnx")
((after > 0 && after < before)) || fail "POST /v1/prune: $before bytes became $after"
model_path=$(header content-location)
report_path=$(header link | sed -nE 's|.*<([^>]+)>; *rel="describedby".*|\1|p')
[[ -n $report_path ]] || fail "POST /v1/prune: no Link header to the report"
ok "POST /v1/prune ($before bytes became $after)"

request 200 "$report_path"
require report '"proof"' '"max_rel_diff"' '"convolutions"'
ok "GET $report_path"

request 200 "$model_path"
cmp --silent "$work/body" "$work/pruned.onnx" || fail "GET $model_path: not the model of the reply"
ok "GET $model_path (the same bytes)"

if grep -qE '"name": *"ort-training", *"works": *true' <<<"$engines"; then
    request 200 /v1/prune -F "model=@$example/digits.onnx" \
        -F "bundle=@$example/calibration.npz" \
        -F 'options={"target":{"filters":8},"engine":"ort-training"}'
    report_path=$(header link | sed -nE 's|.*<([^>]+)>; *rel="describedby".*|\1|p')
    request 200 "$report_path"
    require "report of ort-training" '"name": *"ort-training"' '"filters_after"'
    ok "POST /v1/prune with the engine ort-training"
else
    echo "--  the engine ort-training does not work there: $engines"
fi

printf 'this is no model' >"$work/bad.onnx"
request '4[0-9][0-9]' /v1/prune -F "model=@$work/bad.onnx" -F "bundle=@$example/calibration.npz"
require_type "a bad model" application/problem+json
require "a bad model" '"type"' '"title"' '"status"' '"detail"'
ok "a bad model is a problem document"

request 404 /v1/jobs/no-such-job
require_type "an unknown job" application/problem+json
ok "an unknown job is a problem document"

request 200 /healthz
require healthz '"status": *"ok"'
ok "the server lives on"
