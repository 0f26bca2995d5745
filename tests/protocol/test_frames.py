"""Framing survives any cut, and errors keep their meaning across a process border."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastchat.constants import ErrorCode
from fastchat.errors import (
    ContextOverflowError,
    FastChatError,
    GenerationError,
    OverloadedError,
    RequestError,
    UnknownModelError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)
from fastchat.protocol.worker import (
    FrameReader,
    GenerateParams,
    encode_frame,
    error_chunk,
    error_of,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), max_size=5),
    st.lists(st.integers(1, 7), min_size=1, max_size=8),
)
def test_frames_may_arrive_in_pieces_of_any_size(messages, sizes):
    data = b"".join(encode_frame(message) for message in messages)
    reader, found, at, turn = FrameReader(), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += [json.loads(frame) for frame in reader.feed(data[at : at + size])]
        at, turn = at + size, turn + 1
    assert found == messages
    assert reader.rest == b""


def test_a_frame_without_its_end_is_the_rest():
    reader = FrameReader()
    assert list(reader.feed(encode_frame({"a": 1}) + b'{"b"')) == [b'{"a": 1}']
    assert reader.rest == b'{"b"'


@pytest.mark.parametrize(
    "kind",
    [
        RequestError,
        ContextOverflowError,
        UnknownModelError,
        OverloadedError,
        GenerationError,
        WorkerUnavailableError,
        WorkerTimeoutError,
    ],
)
def test_an_error_is_the_same_on_the_other_side(kind):
    sent = kind("no", hint="Do this.", param="top_p")
    found = error_of(json.loads(encode_frame(error_chunk(sent)).rstrip(b"\0")))
    assert type(found) is kind
    assert (str(found), found.code, found.status, found.param) == (
        "no Do this.",
        sent.code,
        sent.status,
        "top_p",
    )


def test_codes_keep_their_number_and_unknown_ones_are_errors_too():
    memory = GenerationError("full")
    memory.code = ErrorCode.CUDA_OUT_OF_MEMORY
    found = error_of(error_chunk(memory))
    assert isinstance(found, GenerationError)
    assert found.code == ErrorCode.CUDA_OUT_OF_MEMORY
    odd = error_of({"text": "odd", "error_code": 99999})
    assert isinstance(odd, FastChatError)
    assert odd.code == ErrorCode.INTERNAL_ERROR


def test_no_error_code_means_no_error():
    assert error_of({"text": "fine", "error_code": 0}) is None
    assert error_of({"embedding": []}) is None


def test_null_is_as_good_as_absent_except_for_the_token_limit():
    params = GenerateParams.model_validate(
        {"prompt": "a", "stop": None, "temperature": None, "max_new_tokens": None, "top_p": 0.5}
    )
    assert params.temperature == 1.0
    assert params.stop == []
    assert params.max_new_tokens is None
    assert params.wished("max_new_tokens")
    assert not params.wished("temperature")


def test_a_field_that_the_sender_filled_in_is_no_wish():
    params = GenerateParams.model_validate({"temperature": 0.7, "top_p": 1, "unset": ["top_p"]})
    assert params.wished("temperature")
    assert not params.wished("top_p")
