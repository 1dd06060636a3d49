"""Where the service listens: a port to take, the URL that reaches it, whether it answers."""

import http.client
import socket

from deploy.home import CannotStart


def take_port(host: str, port: int) -> int:
    """`port` if it can be bound, a free one for 0. Raises CannotStart where it cannot."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # no wait after an earlier stack
            listener.bind((host, port))
            return int(listener.getsockname()[1])
    except OSError as error:
        raise CannotStart(
            f"cannot bind {host} port {port}: {error.strerror}; "
            "choose another --host, or another --port (0 takes a free one)"
        ) from error


def url_of(host: str, port: int) -> str:
    """The URL that reaches, from this machine, a service bound to `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{reachable}]' if ':' in reachable else reachable}:{port}"


def is_ready(url: str) -> bool:
    """Whether the service answers 200 to `/health/ready` within 2 s."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=2)  # no proxy in between
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
