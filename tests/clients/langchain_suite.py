"""langchain's standard tests of a chat model, run in an environment of their own.

BASE_URL=http://127.0.0.1:8000/v1 pytest tests/clients/langchain_suite.py
"""

from __future__ import annotations

import os

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {
            "model": "echo",
            "base_url": os.environ["BASE_URL"],
            "api_key": "EMPTY",
            "stream_usage": True,
            "max_retries": 0,
        }

    @property
    def supports_image_inputs(self):
        return False

    @property
    def supports_json_mode(self):
        return True

    @property
    def has_tool_choice(self):
        return True

    @pytest.mark.xfail(reason="asks for Anthropic's content blocks, which are not OpenAI's")
    def test_anthropic_inputs(self, model):
        super().test_anthropic_inputs(model)
