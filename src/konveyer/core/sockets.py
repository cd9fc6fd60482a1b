"""Listening for callers."""

import errno
import socket

from konveyer.core.errors import Conflict

_WAITING_CONNECTIONS = 2048


class AddressTaken(Conflict):
    """Somebody else listens at this address."""

    code = "address_taken"


class AddressUnusable(Conflict):
    """This machine does not have the address, or it may not be used."""

    code = "address_unusable"


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens already: whoever connects waits until it is served. Port 0 is any."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_WAITING_CONNECTIONS)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise AddressTaken(
                f"{host}:{port} is in use.", hint="stop what listens there, or give another --port"
            ) from error
        raise AddressUnusable(
            f"Nothing can listen at {host}:{port}: {error}.",
            hint="give a host of this machine and a port from 0 to 65535",
        ) from error
    return listener
