"""Starting and ending a process: sockets, TLS files, signals, exit statuses.

Knows no application. Imports uvicorn only when a server runs.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastchat.errors import FastChatError, SettingsError

if TYPE_CHECKING:
    from types import FrameType

    from fastapi import FastAPI

EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (what users type)
_SHUTDOWN_S = 5
_BACKLOG = 2048
_TICK_S = 0.1
_MOST_FILES = 1 << 16


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of a private key and of its certificate."""

    key: str
    certificate: str

    @classmethod
    def from_environment(cls) -> TlsFiles:
        """Reads SSL_KEYFILE and SSL_CERTFILE.

        Raises:
            SettingsError: one is not set or names no file.
        """
        paths = {name: os.environ.get(name, "") for name in ("SSL_KEYFILE", "SSL_CERTFILE")}
        for name, path in paths.items():
            if not Path(path).is_file():
                raise SettingsError(f"--ssl needs {name} to name a file; it is {path!r}.")
        return cls(paths["SSL_KEYFILE"], paths["SSL_CERTFILE"])


def bind(host: str, port: int) -> list[socket.socket]:
    """Reserves a port on every address of a host, without listening yet.

    Clients are refused until `run_app` listens, so that a process can load for minutes
    and still report a port in use at once. Port 0 takes any free port of the first address.

    Raises:
        FastChatError: the port is in use, or the host is not one of this machine's.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise SettingsError(f"--host {host!r} is no address: {error.strerror}.") from error
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            sockets.append(_bound(family, kind, protocol, address))
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL) and len(found) > 1:
                continue
            for each in sockets:
                each.close()
            raise _cannot_listen(host, port, error) from error
        if port == 0:
            break
    if not sockets:
        raise SettingsError(f"--host {host!r} is not an address of this machine.")
    return sockets


def _bound(family: int, kind: int, protocol: int, address: object) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    sock.set_inheritable(True)
    return sock


def _cannot_listen(host: str, port: int, error: OSError) -> FastChatError:
    if error.errno == errno.EADDRINUSE:
        return FastChatError(
            f"Port {port} on {host} is in use already.",
            hint="Stop the process that listens there, or choose another --port.",
        )
    return FastChatError(f"Cannot listen on {host}:{port}: {error.strerror}.")


def allow_connections() -> None:
    """Lets this process hold as many connections as the system allows; shells allow fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_app(
    app: FastAPI,
    sockets: Sequence[socket.socket],
    host: str,
    tls: TlsFiles | None = None,
    *,
    access_log: bool = True,
) -> None:
    """Serves an application on bound sockets until INT or TERM.

    An application with a `state.drain` is then given the time to finish what it does; a
    second signal ends it at once.

    Args:
        app: what is served.
        sockets: from `bind`.
        host: as it was asked for.
        tls: serves HTTPS.
        access_log: whether every request makes a line in the log.

    Raises:
        FastChatError: another process listens on the port by now, or the start failed.
    """
    import uvicorn

    allow_connections()
    port: int = sockets[0].getsockname()[1]
    for sock in sockets:
        try:
            sock.listen(_BACKLOG)
        except OSError as error:
            raise _cannot_listen(host, port, error) from error

    class Server(uvicorn.Server):
        signals = 0

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            self.signals += 1
            self.force_exit = self.signals > 1
            super().handle_exit(sig, frame)

        async def main_loop(self) -> None:
            await super().main_loop()
            drain = getattr(app.state, "drain", None)
            if drain is None:
                return
            draining = asyncio.create_task(drain())
            while not draining.done() and not self.force_exit:
                await asyncio.wait((draining,), timeout=_TICK_S)
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            scheme, shown = ("https" if tls else "http"), (f"[{host}]" if ":" in host else host)
            logging.getLogger("uvicorn.error").info(
                "Uvicorn running on %s://%s:%d (Press CTRL+C to quit)", scheme, shown, port
            )

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=access_log,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        ssl_keyfile=tls.key if tls else None,
        ssl_certfile=tls.certificate if tls else None,
    )
    try:
        Server(config).run(sockets=list(sockets))
    except KeyboardInterrupt:
        return


def address_of(host: str, port: int, *, tls: bool) -> str:
    """The URL under which others on this machine reach a server bound to `host`."""
    reachable = "localhost" if host in EVERYWHERE else host
    shown = f"[{reachable}]" if ":" in reachable else reachable
    return f"{'https' if tls else 'http'}://{shown}:{port}"
