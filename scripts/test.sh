#!/usr/bin/env bash
# Install what the tests need into .venv, then run them; further arguments go to pytest.
#
#   scripts/test.sh                      all tests but the long ones
#   scripts/test.sh --full               the long ones too: other programs as peers, soaks
#   scripts/test.sh tests/data -k roles  some of them
#
# YUAN2_TOKENIZER   folder of the published tokenizer; without it the tests that need it are skipped
# TEST_WORKERS      how many tests run at once (default 2)
# VENV, PYTHON      another environment, another python to make it with

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

marker="not full"
arguments=()
for argument in "$@"; do
    if [ "$argument" = --full ]; then marker=""; else arguments+=("$argument"); fi
done

ensure_venv tests "${ROOT}[all,dev]"
cd "$ROOT" || exit
exec "$PYTHON_BIN" -m pytest -n "${TEST_WORKERS:-2}" --dist loadgroup -m "$marker" ${arguments[@]+"${arguments[@]}"}
