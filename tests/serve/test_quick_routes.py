"""What a controller answers quickly is what its routes answer."""

from __future__ import annotations

import http.client
import json

import pytest

from fastchat.serve.cluster.app import ControllerSettings
from tests.serve.harness import post

WORKER = "http://127.0.0.1:9"
STATUS = {"model_names": ["m"], "speed": 1, "queue_length": 0}
SECRET = {"Authorization": "Bearer s"}


@pytest.fixture
def url(make_stack):
    _, server = make_stack.controller(settings=ControllerSettings(token="s"))
    body = {"worker_name": WORKER, "worker_status": STATUS}
    assert post(server.url + "/register_worker", body, headers=SECRET).status_code == 200
    return server.url


def told(url, path, body, **headers):
    """Status and answer; a list goes in pieces."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    whole = {"Content-Type": "application/json", **SECRET, **headers}
    connection.request("POST", path, body, whole, encode_chunked=isinstance(body, list))
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


CASES = [
    ("/get_worker_address", {"model": "m"}),
    ("/get_worker_address", {"model": "other"}),
    ("/get_worker_address", {"model": 3}),
    ("/receive_heart_beat", {"worker_name": WORKER, "queue_length": 2}),
    ("/receive_heart_beat", {"worker_name": "http://127.0.0.1:8", "queue_length": 2}),
    ("/receive_heart_beat", {"worker_name": WORKER}),
    ("/receive_heart_beat", []),
]


@pytest.mark.parametrize(("path", "body"), CASES)
def test_the_quick_answer_is_that_of_the_route(url, path, body):
    data = json.dumps(body).encode()
    quick = told(url, path, data)
    # A type with a parameter, and a body in pieces, are left to the route.
    slow = told(url, path, data, **{"Content-Type": "application/json; charset=utf-8"})
    pieces = {"Transfer-Encoding": "chunked"}
    assert quick == slow == told(url, path, [data[:5], data[5:]], **pieces)


def test_what_is_no_json_and_who_does_not_know_the_secret_are_refused(url):
    beat = json.dumps({"worker_name": WORKER, "queue_length": 2}).encode()
    path = "/receive_heart_beat"
    assert told(url, path, beat)[0] == 200
    assert told(url, path, beat, Authorization="Bearer other")[0] == 401
    assert told(url, path, beat, **{"Content-Type": "text/plain"})[0] == 400
    assert told(url, path, b"{")[0] == 400
