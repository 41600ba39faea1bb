"""Where messages may go: every special range that there is, however an address of it is written."""

import pytest

from ci_common.errors import InvalidArgumentError
from ci_eventstore.webhooks.addresses import check_reachable, literal_in, may_be_reached, networks_of

PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.0", "192.0.1.0", "198.17.255.255", "223.255.255.255"]
PUBLIC += ["2606:4700::1111", "2001:200::1", "2a00::1", "::ffff:8.8.8.8", "::ffff:808:808", "64:ff9b::808:808"]
PUBLIC += ["2002:808:808::1"]
#: An address of each row of IANA's registries of special-purpose addresses, as of 2025, or its last one.
IPV4 = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.0", "10.255.255.255", "100.64.0.1", "100.127.255.255", "100.100.100.200"),
    *("127.0.0.1", "127.255.255.255", "169.254.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255"),
    *("192.0.0.0", "192.0.0.8", "192.0.0.9", "192.0.0.10", "192.0.0.170", "192.0.0.171", "192.0.0.192", "192.0.2.1"),
    *("192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.255", "192.175.48.1"),
    *("198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255"),
    *("240.0.0.0", "255.255.255.255"),
]
IPV6 = [
    *("::", "::1", "64:ff9b:1::1", "64:ff9b:1::7f00:1", "100::1", "100:0:0:1::1", "2001::1", "2001:1::1", "2001:1::3"),
    *("2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1", "2001:30::1", "2001:1ff::1"),
    *("2001:db8::1", "2620:4f:8000::1", "3fff::1", "3fff:fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
    # Those with a zone, site-local ones, multicast, what was never given to anybody, IPv4 in its oldest form; Teredo.
    *("fe80::1%eth0", "fe80::1%25eth0", "2001:db8::1%1", "::1%lo", "fec0::1", "ff02::1", "1::1", "4000::1", "e000::1"),
    *("::127.0.0.1", "::8.8.8.8", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "::ffff:0:127.0.0.1"),
]
NONE = [
    "",
    "a.example",
    "127.1",
    "127.0.0.01",
    "2130706433",
    "0x7f000001",
    "[::1]",
    "::1]",
    "1.2.3.4.5",
    "127.0.0.1:80",
]


def forms(address: str) -> list[str]:
    """Return the IPv6 addresses that an IPv4 one stands in, also with a zone."""
    high, low = (int(octet) for octet in address.split(".")[:2]), (int(octet) for octet in address.split(".")[2:])
    packed = ":".join(f"{first * 256 + second:x}" for first, second in (high, low))
    return [f"::ffff:{address}", f"::FFFF:{packed}", f"::ffff:{address}%1", f"64:ff9b::{address}", f"2002:{packed}::1"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_for_tls(address: str) -> None:
    """Plain ones would be read by whoever is in between."""
    assert may_be_reached(address, [])
    assert not may_be_reached(address, [], is_plain=True)


def test_special_addresses_are_for_nobody() -> None:
    """Neither by themselves nor within another one."""
    tried = [*IPV4, *IPV6, *NONE, *(form for address in IPV4 for form in forms(address))]
    assert [address for address in tried if may_be_reached(address, [])] == []


def test_the_operator_may_allow_some() -> None:
    """One address or a network of them, also without TLS; others stay as they are, IPv4 ones within IPv6, too."""
    allowed = networks_of(["10.1.0.0/16", "127.0.0.1", "fd00::/8", "::/0"])
    for address in ("10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00::1", "fe80::1%eth0"):
        assert may_be_reached(address, allowed, is_plain=True)
    for address in ("10.2.0.1", "127.0.0.2", "::ffff:127.0.0.2", "2002:a02:1::", "64:ff9b::10.2.0.1", "8.8.8.8"):
        assert not may_be_reached(address, allowed, is_plain=True)


@pytest.mark.parametrize(
    "text", ["10.1.2.3/16", "localhost", "", "10.0.0.0/33", "::ffff:10.0.0.0/104", "::ffff:10.1.2.3", "2002:a00::/24"]
)
def test_what_is_no_network(text: str) -> None:
    """An operator's mistake is no network that allows more, or that allows nothing."""
    with pytest.raises(ValueError, match=r"IPv4 or IPv6 network|host bits set|holds IPv4 addresses"):
        networks_of([text])


@pytest.mark.parametrize(
    ("host", "address"),
    [
        *((host, "127.0.0.1") for host in ("127.0.0.1", "127.1", "127.0.1", "2130706433", "017700000001")),
        *((host, "127.0.0.1") for host in ("0x7f000001", "0X7F.1", "0177.0.0.1", "0x7f.0.0.0x1", "127.0x1")),
        *(("0", "0.0.0.0"), ("169.16689662", "169.254.169.254"), ("010.0.0.1", "8.0.0.1")),
        ("4294967295", "255.255.255.255"),
        *(("::1", "::1"), ("::ffff:127.0.0.1", "::ffff:7f00:1"), ("0:0::0:1", "::1")),
        *((name, None) for name in ("a.example", "localhost", "4294967296", "1.2.3.4.5", "127.0.0.256", "09", "a", "")),
    ],
)  # fmt: skip
def test_addresses_by_numbers(host: str, address: str | None) -> None:
    """As a browser, `inet_aton` and a resolver read them; anything else is a name."""
    assert literal_in(host) == address


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "[::1]", "[::ffff:7f00:1]", "10.0.0.1", "0", "[fd00::1]"])
def test_an_address_that_nobody_allows_is_refused_when_it_is_registered(host: str) -> None:
    """By its numbers, on any port; one that is allowed isn't, and a name never is."""
    for url in (f"http://{host}/x", f"https://{host}:8443/x"):
        with pytest.raises(InvalidArgumentError, match="webhook-allow"):
            check_reachable(url, [])
        check_reachable(url, networks_of(["0.0.0.0/0", "::/0"]))
    for url in ("https://8.8.8.8/", "https://[2606:4700::1111]/", "http://localhost/", "https://a.example:8443"):
        check_reachable(url, [])
    with pytest.raises(InvalidArgumentError, match="https"):
        check_reachable("http://8.8.8.8/", [])
