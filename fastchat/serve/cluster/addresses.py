"""Which URLs may be registered as workers, so that a controller fetches nothing else. Pure.

Names are resolved by the caller; here is decided whether what they resolve to may be asked.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastchat.errors import ForbiddenError, RequestError, SettingsError

VARIABLE = "FASTCHAT_WORKER_ADDRESSES"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NEVER: tuple[Network, ...] = (
    ipaddress.ip_network("169.254.0.0/16"),  # link-local; the clouds' metadata services
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("100.100.100.200/32"),  # metadata services elsewhere
    ipaddress.ip_network("168.63.129.16/32"),
    ipaddress.ip_network("fd00:ec2::254/128"),
)


@dataclass(frozen=True, slots=True)
class WorkerUrl:
    """A URL that may be a worker's.

    Attributes:
        host: its name or address.
        port: its port.
    """

    host: str
    port: int


def parse_worker_url(url: str) -> WorkerUrl:
    """Reads a worker's URL.

    Raises:
        RequestError: it is not of the form http(s)://host:port.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not plain:
        raise RequestError(
            f"worker_name is {url!r}; the worker's URL is needed, such as http://localhost:21002.",
            param="worker_name",
        )
    return WorkerUrl(parts.hostname, port or (443 if parts.scheme == "https" else 80))


class AddressPolicy:
    """Whose URLs may be registered.

    Args:
        allowed: host names with wildcards, addresses and networks, such as
            `["*.example.org", "10.0.0.0/8"]`; nothing else is allowed then. Empty allows
            this machine and private networks.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._names: list[str] = []
        self._networks: list[Network] = []
        for item in allowed:
            try:
                self._networks.append(ipaddress.ip_network(item, strict=False))
            except ValueError:
                self._names.append(item.lower())

    @classmethod
    def parse(cls, text: str) -> AddressPolicy:
        """Reads a list with commas.

        Raises:
            SettingsError: something that is neither a network nor a host name.
        """
        items = [item.strip() for item in text.split(",") if item.strip()]
        for item in items:
            if set(item) & set("/:@ ") and not _is_network(item):
                raise SettingsError(
                    f"{VARIABLE} holds {item!r}; host names, addresses and networks such as"
                    " 10.0.0.0/8 are allowed."
                )
        return cls(items)

    def check(self, host: str, addresses: Sequence[str]) -> None:
        """Makes sure that a host may be asked.

        Args:
            host: its name, or an address.
            addresses: what the name resolves to.

        Raises:
            ForbiddenError: it may not; says which address is at fault, and what is allowed.
        """
        for text in addresses:
            address = _plain(text)
            if any(address in network for network in _NEVER) or address.is_multicast:
                raise self._refusal(host, address, "link-local and metadata addresses never are")
            if not self._allows(host, address):
                raise self._refusal(host, address, self._what_is_allowed())

    def _allows(self, host: str, address: Address) -> bool:
        if self._names or self._networks:
            return any(fnmatch.fnmatch(host.lower(), name) for name in self._names) or any(
                address in network for network in self._networks
            )
        return address.is_loopback or address.is_private or address.is_unspecified

    def _what_is_allowed(self) -> str:
        listed = [*self._names, *map(str, self._networks)]
        return ", ".join(listed) or "this machine and private networks are"

    def _refusal(self, host: str, address: Address, allowed: str) -> ForbiddenError:
        return ForbiddenError(
            f"A worker at {host} ({address}) is not allowed; {allowed}.",
            hint=f"{VARIABLE} of the controller lists hosts and networks that are.",
            param="worker_name",
        )


def _plain(text: str) -> Address:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
