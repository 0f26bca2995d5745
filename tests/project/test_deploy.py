"""The examples in docs/deploy hold together: they parse, and name what there is."""

from __future__ import annotations

import argparse
import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from fastchat.engine.base import EngineStats
from fastchat.serve.cluster.controller import Controller, ControllerSettings
from fastchat.serve.worker.metrics import WorkerMetrics
from fastchat.serve.worker_entry import add_worker_flags

Objects = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def objects(root) -> Objects:
    """What the Kubernetes files define, by kind and name."""
    found: Objects = {}
    for file in sorted(root.glob("docs/deploy/kubernetes*.yaml")):
        for each in yaml.safe_load_all(file.read_text("utf-8")):
            key = each["kind"], each["metadata"]["name"]
            assert key not in found
            assert re.fullmatch(r"(?:[a-z0-9.-]+/)?v\d\w*", each["apiVersion"])
            found[key] = each
    return found


def test_every_file_is_yaml_that_says_something(root):
    for file in root.glob("docs/deploy/*.y*ml"):
        documents = list(yaml.safe_load_all(file.read_text("utf-8")))
        assert documents
        assert all(isinstance(each, dict) for each in documents)


def test_selectors_find_pods_and_scalers_their_deployments(objects):
    pods = {
        name: each["spec"]["template"]
        for (kind, name), each in objects.items()
        if kind == "Deployment"
    }
    labels = {pod["metadata"]["labels"]["app"] for pod in pods.values()}
    assert labels == pods.keys()
    for (kind, name), each in objects.items():
        spec = each.get("spec", {})
        if kind in ("ScaledObject", "HorizontalPodAutoscaler"):
            assert spec["scaleTargetRef"]["name"] in pods
        elif kind == "PodMonitor":
            assert set(spec["selector"]["matchExpressions"][0]["values"]) <= labels
        elif kind == "PodDisruptionBudget":
            assert spec["selector"]["matchLabels"]["app"] in labels
        elif kind == "Service":
            (container,) = pods[spec["selector"]["app"]]["spec"]["containers"]
            ports = {port["containerPort"] for port in container["ports"]}
            assert {port["port"] for port in spec["ports"]} <= ports, name


def test_what_is_scaled_by_is_what_the_processes_tell(objects):
    queries = [
        trigger["metadata"]["query"]
        for trigger in objects["ScaledObject", "fastchat-worker"]["spec"]["triggers"]
    ]
    assert queries
    for query in queries:
        name = re.search(r"fastchat:\w+", query)[0]
        assert name in _told(), query


def test_pods_that_go_are_given_longer_than_they_take(objects):
    flags = argparse.ArgumentParser()
    add_worker_flags(flags)
    drain_s = flags.parse_args([]).drain_seconds
    for name in ("fastchat-worker", "fastchat-api"):
        pod = objects["Deployment", name]["spec"]["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > drain_s


def _told() -> set[str]:
    stats = EngineStats(running=1, waiting=1)
    worker = WorkerMetrics(lambda: {"yuan2": stats}, lambda: 0).registry
    controller = Controller(ControllerSettings()).metrics
    return {sample for registry in (worker, controller) for sample in _samples(registry)}


def _samples(registry: CollectorRegistry) -> set[str]:
    return {sample.name for metric in registry.collect() for sample in metric.samples}
