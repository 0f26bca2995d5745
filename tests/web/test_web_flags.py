"""The web servers' command lines, and the page as it is sent."""

from __future__ import annotations

import json
import re

import pytest

from fastchat.errors import SettingsError
from fastchat.serve.web.flags import add_arena_flags, parser, run, settings_of
from tests.serve.harness import get


def flags(*argv):
    found = parser("web", "A page.")
    add_arena_flags(found)
    return found.parse_args(["--history-file", ":memory:", *argv])


def test_fastchats_command_lines_are_understood_shortened_too(tmp_path, capsys, monkeypatch):
    apis = tmp_path / "apis.json"
    entry = {"api_type": "openai", "api_base": "http://localhost/v1", "model_name": "m"}
    apis.write_text(json.dumps({"mine": entry}))
    users = tmp_path / "users"
    users.write_text("me:pass:word,you:secret\n")
    args = flags(
        *("--controller", "", "--register", str(apis), "--gradio-auth-path", str(users)),
        *("--concurrency-count", "3", "--model-list-mode", "reload", "--elo", "x", "--port", "1"),
    )
    settings = settings_of(args, many=True)
    assert [model.name for model in settings.api_models] == ["mine"]
    assert settings.auth == [("me", "pass:word"), ("you", "secret")]
    assert (settings.concurrency, settings.reload_models, settings.many) == (3, True, True)
    assert settings.controller_url == ""


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--moderate"], "--moderate"),
        (["--controller-url", ""], "no models"),
        (["--show-terms-of-use"], "--terms-file"),
        (["--register-api-endpoint-file", "/no/where.json"], "cannot be read"),
        (["--gradio-auth-path", "/no/where"], "cannot read"),
    ],
)
def test_flags_that_cannot_be_used_are_refused_with_a_reason(argv, reason):
    with pytest.raises(SettingsError, match=re.compile(reason, re.IGNORECASE)):
        run(flags("--host", "127.0.0.1", "--port", "0", *argv), many=False, name="web")


def test_what_has_no_effect_is_warned_of(capsys):
    with pytest.raises(SettingsError):
        run(flags("--elo-results-file", "x", "--show-terms-of-use"), many=True, name="web")
    assert "--elo-results-file has no effect" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("many", [False, True])
def test_the_page_names_no_other_host_and_every_event_is_its_own(serve_page, many):
    url = serve_page("http://127.0.0.1:9", many=many)
    page = get(url + "/").text
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*?(?:src|href)=\"(https?:[^\"]+)", page)
    assert [url for url in loaded if "127.0.0.1" not in url] == []
    config = get(url + "/config").json()
    assert config["analytics_enabled"] is False
    assert config["footer_links"] == []
    assert {each["api_visibility"] for each in config["dependencies"]} == {"private"}
    answers = [each for each in config["dependencies"] if each.get("types", {}).get("generator")]
    assert len(answers) == (4 if not many else 4 + 2 * 6)
