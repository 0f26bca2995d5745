"""A worker made of FastChat's own base class from PyPI, which echoes; run in its environment.

python tests/clients/peer_worker.py PORT CONTROLLER
"""

from __future__ import annotations

import json
import sys

import uvicorn
from fastchat.serve.base_model_worker import BaseModelWorker, app

from fastchat.conversation import get_conv_template
from fastchat.serve import base_model_worker


class EchoWorker(BaseModelWorker):
    def __init__(self, address, controller):
        super().__init__(controller, address, "peer", "echo", ["echo"], 5, conv_template="raw")
        self.context_len = 2048
        self.init_heart_beat()

    def make_conv_template(self, conv_template=None, model_path=None):
        return get_conv_template("yuan2")  # the base class would load torch for it

    def count_token(self, params):
        return {"count": len(params["prompt"]), "error_code": 0}

    def generate_stream_gate(self, params):
        text = params["prompt"]
        usage = {"prompt_tokens": len(text), "completion_tokens": len(text), "total_tokens": 0}
        for size in range(1, len(text) + 1):
            chunk = {"text": text[:size], "error_code": 0, "usage": usage, "finish_reason": None}
            yield json.dumps(chunk).encode() + b"\0"
        chunk = {"text": text, "error_code": 0, "usage": usage, "finish_reason": "stop"}
        yield json.dumps(chunk).encode() + b"\0"

    def generate_gate(self, params):
        *_, last = self.generate_stream_gate(params)
        return json.loads(last[:-1])


port, controller = sys.argv[1:]
base_model_worker.worker = EchoWorker(f"http://127.0.0.1:{port}", controller)
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")
