"""A line between two processes that can be cut, mended and held up."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

from tests.serve.harness import PATIENCE_S


class Line:
    """Forwards every connection at its own URL to another server.

    Attributes:
        url: where it listens.
        target: the URL that it leads to.
    """

    def __init__(self) -> None:
        self.target = ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._open: set[socket.socket] = set()
        self._flows = threading.Event()
        self._flows.set()
        self._threads: list[threading.Thread] = []
        self._spawn(self._accept, self._listener)

    def cut(self) -> None:
        """Breaks all connections off; the port is closed from now on."""
        _shut(self._listener)
        for each in list(self._open):
            _shut(each)

    def mend(self) -> None:
        """Listens again."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._spawn(self._accept, self._listener)

    def hold(self) -> None:
        """Keeps what comes to itself, without a word to either side."""
        self._flows.clear()

    def close(self) -> None:
        """Ends everything."""
        self.cut()
        self._flows.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the line did not end"

    def _spawn(self, function, *args) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                parts = urlsplit(self.target)
                far = socket.create_connection((parts.hostname, parts.port))
                self._open |= {near, far}
                self._spawn(self._forward, near, far)
                self._spawn(self._forward, far, near)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                sink.sendall(data)
        for each in (source, sink):
            self._open.discard(each)
            _shut(each)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
