"""Which web pages may call the API from a browser."""

from __future__ import annotations

import httpx2

from fastchat.serve.openai.app import create_openai_app
from fastchat.serve.openai.settings import AppSettings, CorsSettings


def test_only_the_named_pages_may_call(make_stack):
    cors = CorsSettings(["https://a.example"], ["POST"], ["*"], allow_credentials=True)
    settings = AppSettings(controller_address="http://127.0.0.1:9", api_keys=None)
    server = make_stack.serve(lambda _: create_openai_app(settings, cors))
    with httpx2.Client(trust_env=False) as client:
        for origin, allowed in (("https://a.example", True), ("https://b.example", False)):
            headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            answer = client.options(server.url + "/v1/chat/completions", headers=headers)
            assert (answer.headers.get("access-control-allow-origin") == origin) is allowed


def test_no_page_loads_anything_from_elsewhere(stack):
    with httpx2.Client(trust_env=False) as client:
        assert client.get(stack.api_server.url + "/docs").status_code == 404
        assert client.get(stack.api_server.url + "/openapi.json").status_code == 200
