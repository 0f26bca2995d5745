"""Which URLs a controller lets be registered."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.errors import ForbiddenError, RequestError, SettingsError
from fastchat.serve.cluster.addresses import AddressPolicy, parse_worker_url
from fastchat.serve.cluster.app import ControllerSettings
from tests.serve.harness import make_served, post, until
from tests.serve.test_controller import announce, models


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.9", "::1", "0.0.0.0"])
def test_this_machine_and_private_networks_are_allowed(address):
    AddressPolicy().check("w", [address])


METADATA = ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fd00:ec2::254"]


@pytest.mark.parametrize("address", [*METADATA, "100.100.100.200", "224.0.0.1"])
@pytest.mark.parametrize("allowed", [[], ["*"], ["0.0.0.0/0", "::/0"]])
def test_metadata_services_are_refused_whatever_is_allowed(address, allowed):
    with pytest.raises(ForbiddenError, match="metadata"):
        AddressPolicy(allowed).check("w", ["127.0.0.1", address])


def test_other_hosts_are_refused_unless_they_are_listed():
    with pytest.raises(ForbiddenError, match=r"w \(8\.8\.8\.8\).*private"):
        AddressPolicy().check("w", ["8.8.8.8"])
    AddressPolicy.parse("8.8.8.0/24").check("w", ["8.8.8.8"])
    AddressPolicy.parse("*.example.org, x").check("GPU1.example.org", ["8.8.8.8"])
    with pytest.raises(ForbiddenError, match=r"10\.0\.0\.0/8"):
        AddressPolicy.parse("10.0.0.0/8").check("localhost", ["127.0.0.1"])


def test_a_list_that_makes_no_sense_is_refused():
    with pytest.raises(SettingsError, match="http://a"):
        AddressPolicy.parse("http://a")


@given(st.text())
def test_any_text_is_a_url_or_is_refused(text):
    with suppress(RequestError):
        url = parse_worker_url(text)
        assert url.host
        assert 0 < url.port < 65536


@pytest.mark.parametrize("url", ["http://u:p@127.0.0.1:1", "http://127.0.0.1:1/?x", "http://[::1"])
def test_urls_with_more_than_a_place_are_refused(url):
    with pytest.raises(RequestError):
        parse_worker_url(url)


def test_a_name_is_judged_by_what_it_resolves_to(make_stack):
    async def resolve(host, port):
        return ["169.254.169.254"] if host == "innocent" else ["10.0.0.1"]

    _, server = make_stack.controller(settings=ControllerSettings(), resolve=resolve)
    assert announce(server, "http://worker:1", "m").status_code == 200
    response = announce(server, "http://innocent:80", "evil")
    assert (response.status_code, response.json()["error_code"]) == (403, 40103)
    assert models(server) == ["m"]


def test_the_secret_guards_what_changes_the_table(make_stack):
    _, server = make_stack.controller(settings=ControllerSettings(token="s3cret"))
    beat = {"worker_name": "http://127.0.0.1:1", "queue_length": 0}
    bodies = {
        "/register_worker": {"worker_name": "http://127.0.0.1:1"},
        "/remove_worker": {"worker_name": "http://127.0.0.1:1"},
        "/receive_heart_beat": beat,
        "/refresh_all_workers": None,
    }
    for path, body in bodies.items():
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            response = post(server.url + path, body, headers=header)
            assert (response.status_code, response.json()["error_code"]) == (401, 40102)
    known = {"Authorization": "Bearer s3cret"}
    response = post(server.url + "/receive_heart_beat", beat, headers=known)
    assert response.json()["exist"] is False


def test_a_worker_that_knows_the_secret_registers_and_leaves(make_stack):
    controller, server = make_stack.controller(settings=ControllerSettings(token="s3cret"))
    served, _ = make_served()
    worker = make_stack.worker(served, server.url, controller_token="s3cret")
    controller.await_worker()
    assert models(server) == ["echo"]
    worker.drain()
    until(lambda: models(server) == [])
