"""Names and numbers that travel over the wire or come from the environment.

Knows nothing of any process; imports nothing but the standard library.
"""

from __future__ import annotations

import enum
import os


class ErrorCode(enum.IntEnum):
    """FastChat's numeric error codes, sent in worker chunks and API error bodies."""

    VALIDATION_TYPE_ERROR = 40001

    INVALID_AUTH_KEY = 40101
    INCORRECT_AUTH_KEY = 40102
    NO_PERMISSION = 40103

    INVALID_MODEL = 40301
    PARAM_OUT_OF_RANGE = 40302
    CONTEXT_OVERFLOW = 40303

    RATE_LIMIT = 42901
    QUOTA_EXCEEDED = 42902
    ENGINE_OVERLOADED = 42903

    INTERNAL_ERROR = 50001
    CUDA_OUT_OF_MEMORY = 50002
    GRADIO_REQUEST_ERROR = 50003
    GRADIO_STREAM_UNKNOWN_ERROR = 50004
    CONTROLLER_NO_WORKER = 50005
    CONTROLLER_WORKER_TIMEOUT = 50006


CONTROLLER_ADDRESS = "http://localhost:21001"
CONTROLLER_HEART_BEAT_EXPIRATION = int(
    os.environ.get("FASTCHAT_CONTROLLER_HEART_BEAT_EXPIRATION", "90")
)
WORKER_HEART_BEAT_INTERVAL = int(os.environ.get("FASTCHAT_WORKER_HEART_BEAT_INTERVAL", "45"))
WORKER_API_TIMEOUT = int(os.environ.get("FASTCHAT_WORKER_API_TIMEOUT", "100"))
WORKER_API_EMBEDDING_BATCH_SIZE = int(
    os.environ.get("FASTCHAT_WORKER_API_EMBEDDING_BATCH_SIZE", "4")
)
INPUT_CHAR_LEN_LIMIT = int(os.environ.get("FASTCHAT_INPUT_CHAR_LEN_LIMIT", "12000"))
BLIND_MODE_INPUT_CHAR_LEN_LIMIT = int(
    os.environ.get("FASTCHAT_BLIND_MODE_INPUT_CHAR_LEN_LIMIT", "30000")
)

CONVERSATION_TURN_LIMIT = 50
SESSION_EXPIRATION_TIME = 3600
LOGDIR = os.environ.get("LOGDIR", ".")

SERVER_ERROR_MSG = "The server could not answer this request. / 服务器未能完成这次请求。"
CONVERSATION_LIMIT_MSG = (
    "This conversation has reached its turn limit; please start a new one."
    " / 本次对话已达轮数上限，请开始新的对话。"
)
INACTIVE_MSG = "This session has expired; please reload the page. / 会话已过期，请刷新页面。"
RATE_LIMIT_MSG = "Too many requests; please wait a moment. / 请求过于频繁，请稍候再试。"
MODERATION_MSG = "This text was refused by the moderation check. / 该内容未通过审核。"
SLOW_MODEL_MSG = "This model answers slowly; please be patient. / 该模型响应较慢，请耐心等待。"
