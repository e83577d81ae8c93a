"""A private Postfix: real smtpd, real queue, nothing of the machine's own Postfix.

    with Postfix({"in": {"smtpd_recipient_restrictions": "check_policy_service inet:..."}}) as postfix:
        with postfix.session("in", addr="198.51.100.7", name="mail.outside.example") as smtp:
            smtp.ehlo()
            ...
        assert postfix.queue("hold")

* master(8) runs in the foreground in mount and pid namespaces of its own: when the shell that is
  process 1 in there ends (its standard input is a pipe that we hold), the kernel ends all the rest.
* The network is the machine's: smtpd listens on free ports of 127.0.0.1, one for each service, and
  reaches a policy service or slapd on loopback, or on a socket file that the user `postfix` may open.
* Its resolver is ours (`dns`, `servfail`): resolv.conf, nsswitch.conf and hosts are replaced in the mount
  namespace only; what it logs before it has read its main.cf goes nowhere.
* Everything is delivered to discard(8); nothing leaves. XCLIENT is allowed from loopback, AUTH PLAIN
  takes every login with any password, from a Dovecot auth server of our own.

Postfix needs root, and unshare(1) must be allowed: `lacking` says what is not there. Another Postfix than
the installed one is run from the folder where it was built (`built`: its bin/ and libexec/).
"""

import base64
import grp
import json
import os
import pwd
import re
import shutil
import socket
import socketserver
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ldappolicy.errors import OracleError
from ldappolicy.oracle.dns import Dns, Records
from ldappolicy.oracle.programs import (
    DEADLINE,
    SEARCH_PATH,
    configure,
    make_old,
    parameter,
    program,
    run,
    start,
)
from ldappolicy.oracle.serving import serving
from ldappolicy.oracle.smtp import Session

MAIN = {
    "compatibility_level": "3.6",
    "maillog_file_prefixes": "/",
    "mail_owner": "postfix",
    # cleanup(8) waits once it has seen 100 messages more than qmgr(8); ours mostly end before DATA.
    "in_flow_delay": "0",
    "setgid_group": "postdrop",
    "inet_interfaces": "127.0.0.1",
    # All: XCLIENT refuses an IPv6 address otherwise.
    "inet_protocols": "all",
    "local_recipient_maps": "",
    "alias_maps": "",
    "alias_database": "",
    "local_transport": "discard:",
    "default_transport": "discard:",
    "relay_transport": "discard:",
    "virtual_transport": "discard:",
    "smtpd_authorized_xclient_hosts": "127.0.0.0/8",
    "smtpd_sasl_auth_enable": "yes",
    "smtpd_sasl_type": "dovecot",
    "smtpd_sasl_path": "private/auth",
    "smtpd_tls_security_level": "none",
    # We may send many wrong commands in one session; a real client that does is slowed down and cut off.
    "smtpd_error_sleep_time": "0",
    "smtpd_soft_error_limit": "1000",
    "smtpd_hard_error_limit": "1000",
    "smtpd_recipient_limit": "1000",
    "smtpd_client_connection_count_limit": "0",
    "notify_classes": "",
    "biff": "no",
    # A table of type ldap: has what its own file says, and nothing of the machine's ldap.conf.
    "import_environment": "MAIL_CONFIG TZ LANG=C POSTLOG_SERVICE POSTLOG_HOSTNAME LDAPNOINIT=1",
}

# name, type, private, process limit, command; unprivileged and chroot are "n" but where master.cf(5) says.
MASTER = """
pickup    unix  n  -  n  60    1  pickup
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
verify    unix  -  -  n  -     1  verify
flush     unix  n  -  n  1000? 0  flush
proxymap  unix  -  -  n  -     -  proxymap
proxywrite unix -  -  n  -     1  proxymap
showq     unix  n  -  n  -     -  showq
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
discard   unix  -  -  n  -     -  discard
anvil     unix  -  -  n  -     1  anvil
scache    unix  -  -  n  -     1  scache
postlog   unix-dgram n - n -   1  postlogd
"""

# Folder of the queue: owner, group, mode, as in Postfix's postfix-files.
QUEUE = {
    **dict.fromkeys(
        (
            "active",
            "bounce",
            "corrupt",
            "defer",
            "deferred",
            "flush",
            "hold",
            "incoming",
            "private",
            "saved",
            "trace",
        ),
        ("postfix", "root", 0o700),
    ),
    "maildrop": ("postfix", "postdrop", 0o730),
    "public": ("postfix", "postdrop", 0o710),
    "pid": ("root", "root", 0o755),
}

# What stands in /etc of the mount namespace; no name is asked of whatever else the machine's libc asks.
NAMES = {
    # Our server answers every question, at once or when the machine lets it.
    "resolv.conf": "nameserver {dns}\noptions timeout:20 attempts:2\n",
    "nsswitch.conf": "hosts: files dns\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
}

# Process 1 of the namespaces. The end of its standard input is the end of everything in there.
INSIDE = """
for name in resolv.conf nsswitch.conf hosts; do
    [ ! -e /etc/$name ] || mount --bind "$1/$name" /etc/$name || exit
done
[ ! -e /dev/log ] || mount --bind /dev/null /dev/log || exit
{ "$2" -c "$3" -d; echo "ended: $?"; } &
exec cat >/dev/null
"""


class NotStarted(OracleError):
    """master(8) was run, and ended: it does not take its main.cf."""


@cache
def lacking() -> str:
    """What it takes to run a private Postfix here; empty: nothing is missing."""
    if os.geteuid() != 0:
        return "a private Postfix needs root"
    if not shutil.which("postconf", path=SEARCH_PATH):
        return "Postfix is not installed: apt-get install postfix postfix-ldap"
    try:
        pwd.getpwnam(MAIN["mail_owner"])
        grp.getgrnam(MAIN["setgid_group"])
    except KeyError as missing:
        return f"Postfix is not installed in full: {missing.args[0]}"
    resolver = "/etc/resolv.conf"
    try:
        run("unshare", "--mount", "--pid", "--fork", "mount", "--bind", resolver, resolver)
    except OracleError as problem:
        return f"mount and pid namespaces are not allowed here: {problem}"
    return ""


class Postfix:
    """One instance. `services`: a name to the main.cf parameters that this smtpd has otherwise.

    `etc` is there before it starts, for tables (`texthash:{postfix.etc}/x`), and the folder is open to
    the user `postfix`: a policy service may put its socket there.
    """

    def __init__(
        self,
        services: Mapping[str, Mapping[str, str]],
        main: Mapping[str, str] | None = None,
        dns: Records | None = None,
        servfail: Collection[str] = (),
        built: Path | None = None,
    ) -> None:
        self.dns = Dns(dns or {}, servfail)
        # A short name that other users may open: sockets of smtpd are in there.
        self.folder = Path(tempfile.mkdtemp(prefix="postfix-lab-"))
        self.folder.chmod(0o755)
        self.etc, self.spool, self.data = (self.folder / name for name in ("etc", "spool", "data"))
        self.etc.mkdir()
        self.services = {name: dict(parameters) for name, parameters in services.items()}
        self._built = built
        self._main = {**MAIN, **(main or {})}
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder)
        # Ours until it ends: smtpd may listen where nobody else may bind (SO_REUSEADDR).
        reserved = {name: self._stack.enter_context(_reserved()) for name in services}
        self.ports = {name: int(held.getsockname()[1]) for name, held in reserved.items()}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.push(self._stack.pop_all())
            stack.enter_context(self.dns)
            self._write()
            stack.enter_context(serving(_AuthServer(self.spool / "private" / "auth")))
            self._start(stack)
            self._wait()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def session(self, service: str, **xclient: str) -> Session:
        """An SMTP connection to a service; keywords are XCLIENT attributes."""
        try:
            return Session(self.ports[service], **xclient)
        except OSError as error:
            raise OracleError(f"{service}: {error}: {self._complaints()}") from error

    def _complaints(self) -> str:
        """Why it does not work, as far as Postfix said; master(8) says nothing before it has its log."""
        return "; ".join([*self._output().splitlines(), *self.log("fatal|panic|error|warning")])

    def _output(self) -> str:
        return (self.folder / "master.out").read_text(errors="replace")

    def log(self, pattern: str = "") -> list[str]:
        """The lines of the mail log that match, so far."""
        text = (self.folder / "mail.log").read_text(errors="replace")
        return [line for line in text.splitlines() if re.search(pattern, line)]

    def wait_for_log(self, pattern: str) -> str:
        """The first line of the mail log that matches, when it has come."""
        deadline = time.monotonic() + DEADLINE
        while not (lines := self.log(pattern)):
            if time.monotonic() > deadline:
                raise OracleError(f"nothing in the log matches {pattern!r}: {self.log()[-5:]}")
            time.sleep(0.02)
        return lines[0]

    def queue(self, name: str = "") -> list[dict[str, Any]]:
        """What postqueue(1) shows of a queue (hold, deferred, active...): one message each."""
        shown = run(program("postqueue", self._built), "-c", self.etc, "-j")
        messages = [json.loads(line) for line in shown.splitlines()]
        return [message for message in messages if name in ("", message["queue_name"])]

    # --- how it is made -------------------------------------------------------------------------

    def _write(self) -> None:
        for folder in (self.spool, self.data):
            folder.mkdir()
        shutil.chown(self.data, "postfix")
        for name, (owner, group, mode) in QUEUE.items():
            (self.spool / name).mkdir()
            (self.spool / name).chmod(mode)
            shutil.chown(self.spool / name, owner, group)
        (self.folder / "mail.log").touch()
        for name, text in NAMES.items():
            (self.folder / name).write_text(text.format(dns=self.dns.address))
        places = {
            "queue_directory": self.spool,
            "data_directory": self.data,
            "maillog_file": self.folder / "mail.log",
            "daemon_directory": self._daemons(),
        }
        main = {**self._main, **{key: str(path) for key, path in places.items()}}
        configure(self.etc, main, self._built)
        (self.etc / "master.cf").write_text(MASTER + "".join(map(self._service, self.services)))
        make_old(*self.etc.iterdir())

    def _daemons(self) -> Path:
        """Where master(8) and what it starts are."""
        return self._built / "libexec" if self._built else Path(parameter("daemon_directory"))

    def _service(self, name: str) -> str:
        """One smtpd of master.cf; `-o { name = value }` takes values with white space."""
        own = {"syslog_name": f"postfix/{name}", **self.services[name]}
        options = "".join(f"  -o {{ {key} = {value} }}\n" for key, value in own.items())
        return f"127.0.0.1:{self.ports[name]} inet n - n - - smtpd\n{options}"

    def _start(self, stack: ExitStack) -> None:
        output = stack.enter_context((self.folder / "master.out").open("w"))
        master = self._daemons() / "master"
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        inside = ("sh", "-c", INSIDE, "sh", self.folder, master, self.etc)
        self._process = start(*namespaces, *inside, output=output)
        stack.callback(self._stop)

    def _stop(self) -> None:
        """Lets go of the shell's standard input; unshare(1) ends when the namespace is empty."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise OracleError(f"Postfix has not ended within {DEADLINE:g} seconds") from None

    def _wait(self) -> None:
        deadline = time.monotonic() + DEADLINE
        waiting = set(self.ports.values())
        while waiting:
            waiting = {port for port in waiting if not _answers(port)}
            if end := re.search(r"(?m)^ended: (\d+)$", self._output()):
                # As sh(1) counts: from 126 on it could not be run, or a signal has ended it.
                kind = NotStarted if int(end[1]) < 126 else OracleError
                raise kind(f"Postfix did not start: {self._complaints()}")
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise OracleError(f"Postfix did not start: {self._complaints()}")
            if waiting:
                time.sleep(0.02)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), DEADLINE).close()
    except OSError:
        return False
    return True


def _reserved() -> socket.socket:
    """A socket bound to a port of loopback that the kernel chose."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def version(built: Path | None = None) -> str:
    """Which Postfix it is: `3.7.11`, `3.12-20260821`."""
    return parameter("mail_version", built)


# --- the auth server ----------------------------------------------------------------------------


class _AuthServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Dovecot's auth protocol, version 1.1, as far as smtpd speaks it: PLAIN, and everybody is let in."""

    request_queue_size = 100

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _AuthSession)
        path.chmod(0o666)


class _AuthSession(socketserver.StreamRequestHandler):
    GREETING = b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00\nDONE\n"

    def handle(self) -> None:
        """Answers until smtpd hangs up, or is ended with all the rest."""
        try:
            self.wfile.write(self.GREETING)
            for line in self.rfile:
                words = line.decode().rstrip("\n").split("\t")
                if words[0] == "AUTH":
                    self.wfile.write(f"OK\t{words[1]}\tuser={self._login(words)}\n".encode())
        except ConnectionError:
            return

    @staticmethod
    def _login(words: list[str]) -> str:
        """RFC 4616: authorization identity, login, password, with a NUL between them."""
        response = next(word.removeprefix("resp=") for word in words if word.startswith("resp="))
        return base64.b64decode(response).split(b"\0")[1].decode()
