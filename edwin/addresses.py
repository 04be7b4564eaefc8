"""Addresses: whose is a request, and which of them count as one; pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def parse_address(text: str) -> Address | None:
    """Return *text* as an address, an IPv4-mapped one as IPv4; None if it is none."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def is_loopback(host: str) -> bool:
    """Return whether *host* names this machine's loopback interface."""
    address = parse_address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def neighbourhood(host: str) -> str:
    """Return what *host* is counted by: its IPv4 address, or its IPv6 /64."""
    address = parse_address(host)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, 64), strict=False))
    return host if address is None else str(address)


def client_address(
    remote: str, forwarded: str | None, trusted: Sequence[Network]
) -> str:
    """Return the address of the client behind a connection.

    Args:
        remote: The connection's own address.
        forwarded: The request's ``X-Forwarded-For``, or None.
        trusted: Networks of the proxies whose word is taken.

    Returns:
        The last address of *forwarded* that is not a trusted proxy's, if *remote* is
        one; else *remote*.

    """
    if not trusted or not forwarded or not is_within(remote, trusted):
        return remote
    nearest = remote
    for item in reversed(forwarded.split(",")):
        address = parse_address(_without_port(item.strip()))
        if address is None:
            # Whoever wrote this is not to be believed about what stands before it.
            break
        nearest = str(address)
        if not is_within(nearest, trusted):
            break
    return nearest


def is_within(host: str, networks: Sequence[Network]) -> bool:
    """Return whether *host* is an address in one of *networks*."""
    address = parse_address(host)
    return address is not None and any(address in network for network in networks)


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
