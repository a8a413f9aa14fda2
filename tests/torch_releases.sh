#!/usr/bin/env bash
# Run the tests that depend most on torch against other releases of it, each in a new environment.
# Without arguments, the lowest and the highest release of the range in pyproject.toml. Needs about
# 7 GB of disk and 3 GB of downloads per release, because PyPI's Linux wheels come with CUDA.
#
#   tests/torch_releases.sh [RELEASE ...]        e.g. tests/torch_releases.sh 2.12.1
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 2.10.0 2.14.1
python=${PYTHON:-python3}
for release in "$@"; do
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    echo "== torch $release"
    "$python" -m venv "$folder"
    grep -vE '^(torch|#)' constraints.txt > "$folder/others.txt"
    grep -E '^torch(metrics|vision)' constraints.txt >> "$folder/others.txt" || true
    "$folder/bin/python" -m pip install -q --no-compile "torch==$release"
    "$folder/bin/python" -m pip install -q --no-compile --no-deps -r "$folder/others.txt"
    CUDA_VISIBLE_DEVICES='' PYTHONPATH=src "$folder/bin/python" -m pytest -q -p no:cacheprovider \
        tests/methods/test_contract.py tests/core/engine tests/core/probe
    rm -rf "$folder"
done
