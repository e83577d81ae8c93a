"""A Runner whose surroundings can be told: what the DNS answers, what the client shows and how it talks.

The DNS is changed while Postfix runs: every smtpd serves one session and remembers no answer. Both runs of
a pair are kept, to see what Postfix answered by itself, and what it was told.
"""

import ast
import hashlib
import re
import socket
import ssl
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from ldappolicy.oracle.dns import Records
from ldappolicy.oracle.smtp import MESSAGE, TIMEOUT
from ldappolicy.oracle.smtp import Session as Smtp
from tests.conformance.pairs import DNS, SERVFAIL, Pair, Session, Transaction
from tests.conformance.runner import Run, Runner, Step
from tests.labs.postfix import SITE
from tests.requests.record import Certificates

CLIENT = {"name": "mail.outside.example", "addr": "203.0.113.9"}
HELO, SENDER, RECIPIENT = "helo.outside.example", "a@outside.example", "bob@local.example"


NOBODY = Session({}, None, "", ())


class Client(Smtp):
    """A client that has this address, and may be too hasty to wait for the 354 of DATA."""

    def __init__(self, port: int, source: str, *, hasty: bool) -> None:
        self._hasty = hasty
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT, (source, 0))
        self._file = self._socket.makefile("rb")
        self.banner = self.reply()

    def data(self, message: bytes = MESSAGE) -> str:
        """The message, if need be in one piece with its DATA; the last reply."""
        if not self._hasty:
            return super().data(message)
        self._socket.sendall(b"DATA\r\n" + message + b".\r\n")
        reply = self.reply()
        return self.reply() if reply.startswith("354") else reply


class Answering(Runner):
    """`main` are more main.cf parameters; `runs` are those of the last pair by service."""

    def __init__(self, main: Mapping[str, str] | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self.certificates = Certificates(Path(self._temporary.name))
        super().__init__(main={**self.certificates.main(), "tls_server_sni_maps": "", **(main or {})})
        self.certificate = ""
        self.hasty = False
        self.source = "127.0.0.1"
        self.runs: dict[str, Run] = {}
        self._is_put: tuple[Pair, str] | None = None

    def __enter__(self) -> Self:
        super().__enter__()
        self._always = self._main
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._temporary.cleanup()

    def say(self, **main: str) -> None:
        """What main.cf has from now on, besides what it always has."""
        self._main = self._always + "".join(f"{name} = {value}\n" for name, value in main.items())

    def answer(self, records: Records, servfail: Collection[str] = ()) -> None:
        """What the DNS has from now on, besides pairs.DNS; a record of no values takes one away."""
        known = {**DNS, **records}
        self.postfix.dns.records = {key: list(values) for key, values in known.items() if values}
        self.postfix.dns.servfail = {*SERVFAIL, *servfail}

    def fingerprint(self) -> str:
        """Of the trusted certificate, as smtpd(8) and the tables of fingerprints have it."""
        pem = re.search(
            r"-----BEGIN CERT.*?END CERT\w+-----\n",
            (Path(self._temporary.name) / "trusted.pem").read_text("ascii"),
            re.DOTALL,
        )
        assert pem is not None
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[0])).digest().hex(":").upper()

    def connect(self, service: str) -> Smtp:
        """A connection, encrypted if there is a certificate to show (`none`: encrypted without one)."""
        smtp = Client(self.postfix.ports[service], self.source, hasty=self.hasty)
        if self.certificate:
            smtp.ehlo("tls.invalid")
            smtp.starttls(self.certificates.clients[self.certificate], SITE["myhostname"])
        return smtp

    def _put(self, pair: Pair) -> None:
        """What is in force already stays so."""
        put = (replace(pair, session=NOBODY), self._main)
        if put != self._is_put:
            super()._put(pair)
        self._is_put = put

    def _session(self, service: str, pair: Pair) -> Run:
        run = super()._session(service, pair)
        self.runs[service] = run
        return run


def session(
    sender: str = SENDER,
    *recipients: str,
    client: Mapping[str, str] = CLIENT,
    helo: str | None = HELO,
    login: str = "",
    etrn: str = "",
    data: bool = False,
) -> Session:
    """One transaction of somebody from outside."""
    transaction = Transaction(sender, recipients or (RECIPIENT,), data)
    return Session(dict(client), helo, login, () if etrn else (transaction,), "", etrn)


def sent(step: Step) -> str:
    """What ldappolicy answered when it was asked first."""
    found = [
        match[1] for line in step.log if (match := re.search(r" action=('.*?'|\".*?\") restriction=", line))
    ]
    return str(ast.literal_eval(found[0])) if found else ""
