# shellcheck shell=bash
# Shared by the scripts beside it: a virtual environment that has what a script needs.
#
# Source it, then call `ensure_venv NAME SPEC`: afterwards $PYTHON_BIN is the environment's python.
# Knows how to install; does not know what is installed for. Bash, no output on success but one
# line a step.

set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${VENV:-$ROOT/.venv}"
PYTHON_BIN="$VENV/bin/python"
CONSTRAINTS="$ROOT/scripts/constraints.txt" # the releases that the tests ran with

# Compiled once at the first import instead of at every start: torch and transformers take
# seconds each without it.
unset PYTHONDONTWRITEBYTECODE

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# The first python that is new enough: $PYTHON, then the names below.
find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer found. Install one, or name it: PYTHON=/path/to/python $0"
}

has_nvidia_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

# One of pip's own settings (environment or pip.conf), e.g. `pip_setting find-links`.
pip_setting() {
    { "$PYTHON_BIN" -m pip config list 2>/dev/null || true; } |
        sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" | head -n 1 | sed 's/\\n/ /g; s/^ *//'
}

# uv installs in seconds what pip takes minutes for, but reads none of pip's settings: hand on the
# mirror, the folders of wheels and the certificate that this machine's pip uses.
hand_pip_settings_to_uv() {
    local index links cert
    index="$(pip_setting index-url)"
    links="$(pip_setting find-links | tr -s ' ' ',')"
    cert="$(pip_setting cert)"
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"; fi
    if [ -n "$links" ]; then export UV_FIND_LINKS="${UV_FIND_LINKS:-$links}"; fi
    if [ -n "$cert" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$cert}"; fi
}

uv_install() { "$UV" pip install --quiet --python "$PYTHON_BIN" -c "$CONSTRAINTS" "$@"; }

# pip compiles every file it installs, which takes longer than the rest: leave that to the import.
pip_install() { "$PYTHON_BIN" -m pip install -qq --no-compile -c "$CONSTRAINTS" "$@"; }

# torch first and alone, because its builds differ by machine. Without an NVIDIA GPU: a wheel from
# pip's own folders, else uv's `cpu` source, else what the package index has (on Linux that build
# carries CUDA: large, but it runs on a CPU just the same).
install_torch() {
    local torch
    torch="$(pinned torch)"
    say "installing $torch"
    if ! has_nvidia_gpu; then
        if [ -n "${UV_FIND_LINKS:-}" ] && uv_install --no-index --no-deps "$torch" 2>/dev/null; then
            return
        fi
        uv_install --torch-backend "${UV_TORCH_BACKEND:-cpu}" "$torch" 2>/dev/null && return
        say "no CPU build found; taking the package index's build of $torch"
    fi
    uv_install "$torch"
}

# `pinned torch` prints torch==X.Y.Z, as the constraints have it.
pinned() { sed -n "s/^\($1==[0-9.]*\).*/\1/p" "$CONSTRAINTS" | head -n 1; }

# Sets UV: the one on the PATH, else the environment's own, put there by pip.
find_uv() {
    UV="$(command -v uv || echo "$VENV/bin/uv")"
    [ -x "$UV" ] || "$PYTHON_BIN" -m pip install -qq --no-compile 'uv>=0.9'
}

install_with_uv() {
    find_uv && hand_pip_settings_to_uv && install_torch && uv_install --editable "$1"
}

install_with_pip() { pip_install "$(pinned torch)" && pip_install --editable "$1"; }

# ensure_venv NAME SPEC: make $VENV if it is missing and install this project into it.
#   NAME  of the set, e.g. demo; a stamp of that name says that its packages are installed
#   SPEC  the project with its extras, e.g. "${ROOT}[dev]"
# Does nothing if neither the dependencies nor this file have changed since the last time.
ensure_venv() {
    local stamp="$VENV/.fastchat-$1" wanted
    wanted="$(cat "$ROOT/pyproject.toml" "$CONSTRAINTS" "$ROOT/scripts/lib.sh" <(echo "$2") | cksum)"
    if [ -x "$PYTHON_BIN" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then return; fi
    if [ ! -x "$PYTHON_BIN" ]; then
        local python
        python="$(find_python)"
        say "making $VENV with $("$python" --version)"
        "$python" -m venv "$VENV"
    fi
    say "installing the packages for: $1"
    if ! install_with_uv "$2"; then
        say "that did not work with uv; trying pip, which takes some minutes"
        install_with_pip "$2" || die "installing failed; pip's messages above say why"
    fi
    printf '%s\n' "$wanted" >"$stamp"
}
