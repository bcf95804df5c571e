"""Which addresses are on the public internet; everything else may be a service that trusts its network."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_UNICAST = IPv6Network("2000::/3")
"""All that was ever allocated of IPv6's public addresses."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""Addresses of IPv4 as networks without IPv4 reach them."""


def is_public(text: str) -> bool:
    """Whether an address, as a socket has it, is a public unicast address; False for what is no address.

    Of an IPv6 address that carries one of IPv4, the latter has to be public.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        carried = _carried(address)
        if carried is None:
            return address in _UNICAST and address.is_global
        address = carried
    return address.is_global and not address.is_multicast and not address.is_reserved


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that one of IPv6 is translated to; None if it is to none."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour
