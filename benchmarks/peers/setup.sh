#!/usr/bin/env bash
# The environments of the pruners that benchmarks/accuracy compares with: one folder each in .venv-peers/.
set -euo pipefail
cd "$(dirname "$0")/../.."
for program in torch_pruning onnxsim; do
    environment=".venv-peers/$program"
    test -x "$environment/bin/python" || "${PYTHON:-python3.11}" -m venv "$environment"
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check -r "benchmarks/peers/$program.txt"
done
