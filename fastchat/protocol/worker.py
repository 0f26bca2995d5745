"""The messages between API server, controller and workers, and how a stream is framed.

FastChat's wire format: JSON bodies, and a stream of chunks that are each one JSON object
followed by a zero byte. A chunk's text is cumulative. Knows nothing of HTTP libraries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypedDict

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fastchat.constants import ErrorCode
from fastchat.errors import (
    AuthenticationError,
    ContextOverflowError,
    FastChatError,
    ForbiddenError,
    GenerationError,
    OverloadedError,
    RateLimitError,
    RequestError,
    UnknownModelError,
    WorkerTimeoutError,
    WorkerUnavailableError,
)


class GrammarParams(BaseModel):
    """What an answer has to look like; see `fastchat.engine.base.Grammar`."""

    kind: Literal["json", "json_schema", "regex", "choice", "ebnf"]
    text: str = ""


class GenerateParams(BaseModel):
    """What a worker is asked to generate; the body of `/worker_generate_stream`.

    One of `messages`, `token_ids` and `prompt` holds the prompt; the first of them that is
    given counts. A null field other than `max_new_tokens` is as good as absent.

    Attributes:
        messages: rendered by the worker with the model's own chat template.
        prompt: rendered text; special tokens in it are parsed.
        echo: whether the text of the answer starts with the prompt.
        max_new_tokens: null is the rest of the context.
        logprobs: alternatives per token, or null for no log-probabilities.
        truncation: "auto" drops the oldest turns of messages that exceed the context;
            "disabled" is an error then.
        adapter: a LoRA adapter that answers; a model name of the worker's may imply one.
        priority: requests of a lower number are admitted first.
        deadline_s: a request that has not begun by then is given up.
        deltas: chunks tell what is new, in place of everything so far.
        stream_interval: tokens between two chunks; the worker's own if null.
        cache_salt: computed prefixes are shared only among requests of the same salt.
        unset: fields that hold a default of the sender, not a wish of its client.
        request_id: names the request in logs and errors.
    """

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    messages: list[dict[str, str]] | None = None
    token_ids: list[int] | None = None
    prompt: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = Field(default_factory=dict)
    no_repeat_ngram: int = 0
    grammar: GrammarParams | None = None
    min_new_tokens: int = 0
    max_new_tokens: int | None = 256
    stop: str | list[str] = Field(default_factory=list)
    stop_token_ids: list[int] = Field(default_factory=list)
    ignore_eos: bool = False
    truncation: Literal["auto", "disabled"] = "disabled"
    adapter: str | None = None
    priority: int = 0
    deadline_s: float | None = None
    cache_salt: str = ""
    deltas: bool = False
    stream_interval: int | None = Field(default=None, ge=1)
    seed: int | None = None
    logprobs: int | None = None
    echo: bool = True
    best_of: int | None = None
    use_beam_search: bool = False
    images: list[Any] = Field(default_factory=list)
    unset: list[str] = Field(default_factory=list)
    request_id: str = ""

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {k: v for k, v in values.items() if v is not None or k == "max_new_tokens"}

    def wished(self, name: str) -> bool:
        """Whether the client itself asked for this field's value."""
        return name in self.model_fields_set and name not in self.unset


class Usage(TypedDict):
    """Token counts so far.

    Attributes:
        cached_tokens: of the prompt, whose computed beginning was found; workers of other
            makes do not tell.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: NotRequired[int]


class ChunkLogprobs(TypedDict):
    """Log-probabilities of all tokens so far, in parallel lists."""

    text_offset: list[int]
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]


class Chunk(TypedDict):
    """One chunk of a generation stream, or the answer of `/worker_generate`.

    Attributes:
        text: all text so far, or the reason if `error_code` is not 0.
        finish_reason: null until the last chunk, which holds nothing else that is new.
        delta: whether text and logprobs hold only what is new since the chunk before.
        param: the request field at fault, in error chunks.
        retry_after_s: when to try again, in error chunks of an overloaded worker.
    """

    text: str
    error_code: int
    usage: NotRequired[Usage]
    finish_reason: NotRequired[Literal["stop", "length"] | None]
    logprobs: NotRequired[ChunkLogprobs | None]
    delta: NotRequired[bool]
    param: NotRequired[str]
    retry_after_s: NotRequired[float]


class ModelParams(BaseModel):
    """A question about one model."""

    model: str = ""


class CountTokenParams(ModelParams):
    """How many tokens a prompt, or messages with the chat template around them, take."""

    prompt: str = ""
    messages: list[dict[str, str]] | None = None


class EmbeddingsParams(ModelParams):
    """Texts, or rows of token ids in their place, to embed."""

    input: list[str] = Field(default_factory=list)
    token_ids: list[list[int]] | None = None
    encoding_format: Literal["float", "base64"] | None = None


class EmbeddingsAnswer(BaseModel):
    """One embedding per input (numbers, or base64 of little-endian float32) and the tokens read."""

    embedding: list[list[float]] | list[str]
    token_num: int


class CountTokenAnswer(BaseModel):
    """A token count."""

    count: int
    error_code: int = 0


class TokenizeAnswer(BaseModel):
    """A prompt as token ids, and each token's text."""

    tokens: list[int]
    texts: list[str]
    context_length: int


class DetokenizeParams(ModelParams):
    """Token ids to be turned into text."""

    tokens: list[int]


class DetokenizeAnswer(BaseModel):
    """The text of token ids, special tokens included."""

    text: str


class ConvTemplateAnswer(BaseModel):
    """The fields of a model's `Conversation`; `sep_style` is a number."""

    conv: dict[str, Any]


class ModelDetails(BaseModel):
    """What a worker tells of its model."""

    context_length: int


class WorkerStatus(BaseModel):
    """What a worker serves and how busy it is (requests running and waiting)."""

    model_names: list[str]
    speed: float = Field(default=1, gt=0)
    queue_length: int = 0


class RegisterWorker(BaseModel):
    """A worker, named by its URL, announces itself to a controller.

    Without a `worker_status` the controller asks the worker for it.
    """

    worker_name: str
    check_heart_beat: bool = True
    worker_status: WorkerStatus | None = None
    multimodal: bool = False


class HeartBeat(BaseModel):
    """A worker tells its controller that it is alive and how busy it is."""

    worker_name: str
    queue_length: int


class ModelNames(BaseModel):
    """The models that a controller's workers serve."""

    models: list[str]


class WorkerAddress(BaseModel):
    """The URL of a worker, "" if none serves the model.

    Attributes:
        alone: nobody else serves the model, so that for a moment no one need be asked.
    """

    address: str
    alone: bool = False


class HeartBeatAnswer(BaseModel):
    """Whether the controller knows the worker; if not, it has to register again.

    Attributes:
        next_s: when the controller would like to hear from it again, in seconds.
    """

    exist: bool
    next_s: float | None = None


class RemoveWorker(BaseModel):
    """A worker, named by its URL, takes its leave."""

    worker_name: str


class DispatchQuestion(ModelParams):
    """Which worker is to answer a request.

    Attributes:
        prefix: hashes of the request's beginnings, the shortest first; requests that begin
            alike share them.
        failed: workers that were asked already and could not be reached.
    """

    prefix: list[str] = Field(default_factory=list)
    failed: list[str] = Field(default_factory=list)


_ERRORS: dict[int, type[FastChatError]] = {
    ErrorCode.VALIDATION_TYPE_ERROR: RequestError,
    ErrorCode.INVALID_AUTH_KEY: AuthenticationError,
    ErrorCode.INCORRECT_AUTH_KEY: AuthenticationError,
    ErrorCode.NO_PERMISSION: ForbiddenError,
    ErrorCode.INVALID_MODEL: UnknownModelError,
    ErrorCode.PARAM_OUT_OF_RANGE: RequestError,
    ErrorCode.CONTEXT_OVERFLOW: ContextOverflowError,
    ErrorCode.RATE_LIMIT: RateLimitError,
    ErrorCode.QUOTA_EXCEEDED: OverloadedError,
    ErrorCode.ENGINE_OVERLOADED: OverloadedError,
    ErrorCode.CONTROLLER_NO_WORKER: WorkerUnavailableError,
    ErrorCode.CONTROLLER_WORKER_TIMEOUT: WorkerTimeoutError,
}


_KNOWN_CODES = frozenset(int(code) for code in ErrorCode)


def error_chunk(error: FastChatError) -> Chunk:
    """How an error travels inside a stream or as a worker's answer."""
    chunk = Chunk(text=str(error), error_code=int(error.code))
    if error.param is not None:
        chunk["param"] = error.param
    if isinstance(error, OverloadedError):
        chunk["retry_after_s"] = error.retry_after_s
    return chunk


def error_of(answer: Mapping[str, Any]) -> FastChatError | None:
    """The error that an answer or chunk of a worker reports, if it reports one."""
    code = int(answer.get("error_code", 0))
    if code == 0:
        return None
    kind = _ERRORS.get(code, GenerationError)
    error = kind(str(answer.get("text", "")), param=answer.get("param"))
    if code in _KNOWN_CODES:
        error.code = ErrorCode(code)
    if isinstance(error, OverloadedError):
        error.retry_after_s = float(answer.get("retry_after_s", error.retry_after_s))
    return error


def encode_frame(message: Mapping[str, Any]) -> bytes:
    """A message as it travels in a stream: JSON in UTF-8 and a zero byte."""
    return json.dumps(message, ensure_ascii=False).encode() + b"\0"


class FrameReader:
    """Cuts a stream of bytes, arriving in pieces of any size, into its frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterable[bytes]:
        """The frames that `data` completes, without their zero bytes."""
        *frames, self._rest = (self._rest + data).split(b"\0")
        return [frame for frame in frames if frame]

    @property
    def rest(self) -> bytes:
        """The beginning of a frame that has not been completed."""
        return self._rest
