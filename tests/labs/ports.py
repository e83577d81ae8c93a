"""TCP ports for servers that have to be told theirs: no two processes of tests are given the same one.

They are not those that the kernel gives to outgoing connections, any of which might get a port while its
server is being started, or restarted. A process takes ports by the hundred: it holds an abstract socket with
the name of that hundred (unix(7)), which the kernel gives to one process of a network namespace and takes
back when it ends.
"""

import socket
from collections.abc import Iterator
from pathlib import Path

BLOCK = 100
_LOWEST, _HIGHEST = 20000, 65535

_held: list[socket.socket] = []


def _blocks() -> list[range]:
    """Every hundred, those first of which the kernel gives none away."""
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split())
    every = (range(start, start + BLOCK) for start in range(_LOWEST, _HIGHEST - BLOCK, BLOCK))
    return sorted(every, key=lambda block: block.start <= last and block.stop > first)


def _is_ours(block: range) -> bool:
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0ldappolicy tests, ports {block.start}")
    except OSError:
        claim.close()
        return False
    _held.append(claim)
    return True


def _is_free(port: int) -> bool:
    """Whether nobody else has it, who is no process of tests."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _ours() -> Iterator[int]:
    for block in _blocks():
        if _is_ours(block):
            yield from block
    raise RuntimeError(f"all ports of {_LOWEST} to {_HIGHEST} are taken")


_unused = _ours()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has or will be given while this process lives."""
    return next(port for port in _unused if _is_free(port))
