"""Which addresses messages may go to: public ones by TLS, and those that the operator allows. Pure.

What is public is decided by the table here, not by Python's, which differs from version to version.
"""

import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from ci_common.errors import InvalidArgumentError

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

#: They hold an IPv4 address, which is the one that counts.
_MAPPED, _NAT64, _6TO4 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")
#: All of IPv6 that is given to anybody.
_UNICAST = IPv6Network("2000::/3")
#: What IANA's registries of special-purpose addresses have beside these, also what routers could find: no receiver
#: is there. Then multicast, and what is reserved.
_SPECIAL: list[Network] = [
    *map(IPv4Network, ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12")),
    *map(IPv4Network, ("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24")),
    *map(IPv4Network, ("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24")),
    *map(IPv4Network, ("224.0.0.0/4", "240.0.0.0/4")),
    *map(IPv6Network, ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")),
]


def networks_of(texts: Collection[str]) -> list[Network]:
    """Return addresses and networks, such as 10.1.0.0/16; ValueError."""
    networks = [ip_network(text) for text in texts]
    for network in networks:
        if isinstance(network, IPv6Network) and any(map(network.subnet_of, (_MAPPED, _NAT64, _6TO4))):
            raise ValueError(f"{network} holds IPv4 addresses: write those, they count")
    return networks


def embedded(address: Address) -> Address:
    """Return the IPv4 address that stands in an IPv6 one, or else the address itself."""
    if isinstance(address, IPv6Address):
        if address in _MAPPED or address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _6TO4:
            return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return address


def may_be_reached(text: str, allowed: Collection[Network], *, is_plain: bool = False) -> bool:
    """Tell whether messages may go to an address: to a public one by TLS, or to one that the operator allows."""
    try:
        # A zone says by which interface.
        address = embedded(ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    if any(address in network for network in allowed):
        return True
    is_public = isinstance(address, IPv4Address) or address in _UNICAST
    return is_public and not is_plain and not any(address in network for network in _SPECIAL)


def literal_in(host: str) -> str | None:
    """Return the address that a host is by itself, however it is spelt, as 127.1 or 0x7f000001; None for a name."""
    try:
        return str(IPv6Address(host)) if ":" in host else socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def check_reachable(url: str, allowed: Collection[Network]) -> None:
    """Refuse an address by numbers to which nothing would ever be sent; InvalidArgumentError.

    What a name stands for is asked when something is sent.
    """
    parts = urlsplit(url)
    address = literal_in(parts.hostname or "")
    if address is not None and not may_be_reached(address, allowed, is_plain=parts.scheme == "http"):
        needed = "https:// and a public address, or one that --webhook-allow names"
        raise InvalidArgumentError("url", url, needed)
