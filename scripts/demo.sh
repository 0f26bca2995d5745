#!/usr/bin/env bash
# Install what the demo needs into .venv, then run it; further arguments go to `fastchat demo`.
#
#   scripts/demo.sh
#
# Needs no GPU and downloads no model: the demo fine-tunes and serves a tiny Yuan2 of its own.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ensure_venv demo "$ROOT"
exec "$VENV/bin/fastchat" demo "$@"
