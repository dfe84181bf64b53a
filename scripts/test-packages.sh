#!/usr/bin/env bash
# Install what tests otherwise skip: Debian's packages of Chromium (the dashboard's tests) and
# PostgreSQL (tests of many workers). Only what is missing, only as root and with apt-get; where
# that does not work it says so, and the tests are skipped. Exits 0 in any case.
set -uo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
# Debian keeps the server's programs out of PATH. TEST_PACKAGES_ROOT is for the script's own tests.
if ! command -v pg_ctl >/dev/null && ! compgen -G "${TEST_PACKAGES_ROOT:-}/usr/lib/postgresql/*/bin/pg_ctl" >/dev/null; then
    missing+=(postgresql)
fi
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Not installed: ${missing[*]} (that takes root and apt-get); the tests that need them are skipped." >&2
    exit 0
fi

# The tests start a PostgreSQL of their own: the package need not start one.
readonly policy=${TEST_PACKAGES_ROOT:-}/usr/sbin/policy-rc.d
if [[ ! -e $policy ]] && printf '#!/bin/sh\nexit 101\n' >"$policy" 2>/dev/null; then
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi

echo "Installing ${missing[*]} for the tests."
export DEBIAN_FRONTEND=noninteractive
# Lists of packages are missing in fresh containers, and may be old elsewhere.
if ! { apt-get -qq update && apt-get -qq --yes --no-install-recommends install "${missing[@]}"; } >/dev/null; then
    echo "Not installed: ${missing[*]} (apt-get failed); the tests that need them are skipped." >&2
fi
