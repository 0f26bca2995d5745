"""The one tree of errors this project raises on purpose.

Every error says what was wrong, what was given and what is allowed, and carries the
numeric code and HTTP status under which a server reports it. Knows nothing of HTTP
libraries or processes::

    FastChatError                   500  INTERNAL_ERROR
    ├── SettingsError               400  a flag or setting that cannot be used (exit status 2)
    ├── CheckpointError             500  a model folder that is missing, broken or does not fit
    │   └── UnsupportedModelError   500  another network under a known name (Yuan2-M32, ...)
    ├── DataError                   400  a data file or sample that cannot be trained on
    ├── TrainingError               500  a training run that cannot go on
    ├── RequestError                400  a request with a wrong or impossible field
    │   ├── ContextOverflowError    400  the prompt (plus max tokens) exceeds the context
    │   ├── UnknownModelError       404  no worker serves this model name
    │   ├── AuthenticationError     401  missing or wrong API key
    │   ├── ForbiddenError          403  this may not be done, whoever asks
    │   └── TooLargeError           413  the body exceeds the size limit
    ├── OverloadedError             429  the queue is full; try again later
    │   └── RateLimitError          429  an API key has used up what it may for now
    ├── DeadlineError               408  the request waited as long as it may, and was not begun
    ├── GenerationError             500  generation failed; this request only
    ├── WorkerUnavailableError      503  no worker, or the worker went away
    └── WorkerTimeoutError          504  the worker sent nothing for too long
"""

from __future__ import annotations

from fastchat.constants import ErrorCode


class FastChatError(Exception):
    """Base of all errors raised on purpose.

    Args:
        message: what was wrong, what was given, what is allowed.
        hint: what to do about it; shown after the message.
        param: the request field or flag at fault, if one is.
    """

    code: ErrorCode = ErrorCode.INTERNAL_ERROR
    status: int = 500
    exit_status: int = 1

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message


class SettingsError(FastChatError):
    """A flag, environment variable or settings file holds a value that cannot be used."""

    code = ErrorCode.PARAM_OUT_OF_RANGE
    status = 400
    exit_status = 2


class CheckpointError(FastChatError):
    """A model folder is missing, incomplete, broken, or does not fit its config."""


class UnsupportedModelError(CheckpointError):
    """The checkpoint belongs to another network than the one its names suggest."""


class DataError(FastChatError):
    """A data file cannot be read, or a sample in it cannot be trained on."""

    code = ErrorCode.VALIDATION_TYPE_ERROR
    status = 400


class TrainingError(FastChatError):
    """A training run cannot go on; what it saved before stays."""


class RequestError(FastChatError):
    """A request carries a wrong, unknown or impossible field."""

    code = ErrorCode.PARAM_OUT_OF_RANGE
    status = 400


class ContextOverflowError(RequestError):
    """The prompt, or the prompt plus the tokens asked for, exceeds the model's context."""

    code = ErrorCode.CONTEXT_OVERFLOW


class UnknownModelError(RequestError):
    """No registered worker serves the model name that was asked for."""

    code = ErrorCode.INVALID_MODEL
    status = 404


class AuthenticationError(RequestError):
    """The API key is missing or wrong."""

    code = ErrorCode.INCORRECT_AUTH_KEY
    status = 401


class ForbiddenError(RequestError):
    """Something that may not be done, such as registering a worker at a refused address."""

    code = ErrorCode.NO_PERMISSION
    status = 403


class TooLargeError(RequestError):
    """The body of a request exceeds the server's limit."""

    status = 413


class OverloadedError(FastChatError):
    """The queue is full; the same request may succeed later.

    Attributes:
        retry_after_s: when it is worth while to try again.
    """

    code = ErrorCode.ENGINE_OVERLOADED
    status = 429
    retry_after_s: float = 1.0


class RateLimitError(OverloadedError):
    """An API key has used up the requests or tokens that it may have for now."""

    code = ErrorCode.RATE_LIMIT


class DeadlineError(FastChatError):
    """A request's own time limit passed before it was begun."""

    code = ErrorCode.ENGINE_OVERLOADED
    status = 408


class GenerationError(FastChatError):
    """Generation of one request failed; other requests are not affected."""


class WorkerUnavailableError(FastChatError):
    """No worker is alive for the model, or the worker went away mid-request."""

    code = ErrorCode.CONTROLLER_NO_WORKER
    status = 503


class WorkerTimeoutError(FastChatError):
    """A worker sent no chunk within the allowed time."""

    code = ErrorCode.CONTROLLER_WORKER_TIMEOUT
    status = 504
