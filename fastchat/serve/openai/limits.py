"""What an API key may use up in a minute. Pure: the time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, whose it is, and what it may use.

    Attributes:
        key: the secret.
        name: told in logs; the key itself never is.
        requests_per_minute, tokens_per_minute: None is without limit.
    """

    key: str
    name: str = ""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class Bucket:
    """An allowance that refills steadily; never more than a minute's worth is in it.

    It may be overdrawn, for what an answer takes is known only when it is there.
    """

    def __init__(self, per_minute: int) -> None:
        self._size = float(per_minute)
        self._left = float(per_minute)
        self._at = 0.0

    def wait_s(self, needed: float, *, now: float) -> float:
        """Seconds until so much is there; 0 if it is."""
        self._refill(now)
        missing = min(needed, self._size) - self._left
        return max(0.0, missing * _MINUTE_S / self._size)

    def take(self, amount: float, *, now: float) -> None:
        """Uses some of it up."""
        self._refill(now)
        self._left -= amount

    def _refill(self, now: float) -> None:
        earned = max(0.0, now - self._at) * self._size / _MINUTE_S
        self._left, self._at = min(self._size, self._left + earned), now


class Allowance:
    """What one key may still use."""

    def __init__(self, key: ApiKey) -> None:
        self._requests = _bucket(key.requests_per_minute)
        self._tokens = _bucket(key.tokens_per_minute)

    def wait_s(self, *, now: float) -> float:
        """Seconds until another request may be made; 0 if it may now."""
        waits = [bucket.wait_s(1, now=now) for bucket in (self._requests, self._tokens) if bucket]
        return max(waits, default=0.0)

    def request(self, *, now: float) -> None:
        """Counts a request."""
        if self._requests is not None:
            self._requests.take(1, now=now)

    def tokens(self, count: int, *, now: float) -> None:
        """Counts tokens of a prompt and its answer."""
        if self._tokens is not None:
            self._tokens.take(count, now=now)


def _bucket(per_minute: int | None) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute)
