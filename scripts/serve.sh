#!/usr/bin/env bash
# Start, stop and look at the services of one machine: controller, worker, OpenAI-compatible API.
#
#   scripts/serve.sh start | stop | restart | status
#
# Change the settings below, or set them in the environment: MODEL_PATH=/models/yuan2 scripts/serve.sh start

CONTROLLER_HOST="${CONTROLLER_HOST:-0.0.0.0}"
CONTROLLER_PORT="${CONTROLLER_PORT:-8503}"
MODEL_WORKER_HOST="${MODEL_WORKER_HOST:-0.0.0.0}"
MODEL_WORKER_PORT="${MODEL_WORKER_PORT:-8504}"
API_SERVER_HOST="${API_SERVER_HOST:-0.0.0.0}"
API_SERVER_PORT="${API_SERVER_PORT:-8505}"
MODEL_PATH="${MODEL_PATH:-/mnt/models/Yuan2-2B-Mars-hf/}"
MODEL_NAMES="${MODEL_NAMES:-yuan2}"
DTYPE="${DTYPE:-bfloat16}"
LOG_DIR="${LOG_DIR:-logs}"

set -euo pipefail

PYTHON="${PYTHON:-python3}"

start() {
    "$PYTHON" -m fastchat.serve.launch_all_serve \
        --controller-host "$CONTROLLER_HOST" --controller-port "$CONTROLLER_PORT" \
        --model-path-address "$MODEL_PATH@$MODEL_WORKER_HOST@$MODEL_WORKER_PORT" \
        --model-names "$MODEL_NAMES" --dtype "$DTYPE" \
        --server-host "$API_SERVER_HOST" --server-port "$API_SERVER_PORT" \
        --log-dir "$LOG_DIR" "$@"
}

stop() { "$PYTHON" -m fastchat.serve.shutdown_serve --log-dir "$LOG_DIR"; }

# The exit status is 0 if the API can answer.
status() {
    "$PYTHON" - "http://127.0.0.1:$API_SERVER_PORT/health" <<'PY'
import sys
import urllib.error
import urllib.request

opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(sys.argv[1], timeout=5) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(f"{sys.argv[1]}: {error.read().decode()}")
except OSError as error:
    sys.exit(f"{sys.argv[1]}: {error}")
PY
}

command="${1:-}"
[ $# -gt 0 ] && shift
case "$command" in
start) start "$@" ;;
stop) stop ;;
restart) stop && start "$@" ;;
status) status ;;
*)
    echo "usage: $0 start|stop|restart|status" >&2
    exit 2
    ;;
esac
