"""The private directory servers of the tests: each starts, holds what is loaded, and stops."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.samba import Samba, needs_samba
from tests.labs.server import Server
from tests.labs.slapd import wait_until

pytestmark = pytest.mark.servers

SERVERS = [
    pytest.param(lambda: DS389(schema="ldappolicy"), id="389ds", marks=needs_389ds),
    pytest.param(lambda: DS389(content_sync=True, memberof=False), id="389ds streams", marks=needs_389ds),
    pytest.param(lambda: Samba(), id="samba", marks=needs_samba),
    pytest.param(lambda: Samba(schema="ldappolicy"), id="samba with the schema", marks=needs_samba),
]


def tree(server: Server) -> str:
    """A folder below the suffix; the suffix itself where it does not come with the server."""
    folder = f"dn: OU=people,{server.suffix}\nobjectClass: organizationalUnit\nou: people\n"
    return folder if isinstance(server, Samba) else f"dn: {server.suffix}\nobjectClass: domain\n\n{folder}"


def there(server: Server) -> bool:
    """Whether the folder can be modified, which takes that it is there."""
    change = f"dn: OU=people,{server.suffix}\nchangetype: modify\nreplace: description\ndescription: here\n"
    try:
        server.load(change)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("started", SERVERS)
def test_life_of_a_server(started: Callable[[], Server]) -> None:
    """It keeps what it was given through a restart, says nothing while suspended, and leaves nothing."""
    with started() as server:
        server.load(tree(server))
        server.restart()
        assert there(server)
        server.kill()
        server.start()
        assert there(server)
        server.suspend()
        assert "T" == state(server.pid)
        server.resume()
        assert there(server)
        pid = server.pid
    assert not server.home.exists()
    wait_until(lambda: not exists(pid))


@pytest.mark.parametrize("started", SERVERS)
def test_what_is_refused_is_an_error(started: Callable[[], Server]) -> None:
    """A load that the server refuses does not pass for one that it took."""
    with started() as server, pytest.raises(RuntimeError, match="ldapmodify: "):
        server.load(f"dn: cn=x,ou=nowhere,{server.suffix}\nobjectClass: device\ncn: x\n")


@needs_samba
def test_domain_controllers_do_not_meet() -> None:
    """Two at once, on the ports that both want, and none of these here."""
    with Samba() as one, Samba() as two:
        one.load(tree(one))
        assert [True, False] == [there(one), there(two)]
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", 3268), 1):
            pass


def state(pid: int) -> str:
    """What proc(5) says the process is doing."""
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(") ")[2][0]


def exists(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
