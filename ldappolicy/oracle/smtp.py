"""An SMTP client that shows replies as they are: text, code first, lines joined by a newline.

    with Session(port, name="mail.outside.example", addr="198.51.100.7", login="amy") as smtp:
        smtp.ehlo()
        assert smtp.mail("amy@my.domain").startswith("250")

What stands between the angle brackets is sent as it is: smtplib would tidy up the addresses that are in
question. The client's identity is said by XCLIENT (Postfix XCLIENT_README).
"""

import base64
import re
import socket
import ssl
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from ldappolicy.errors import OracleError

TIMEOUT = 120.0
MESSAGE = b"Subject: test\r\n\r\nThe text.\r\n"


def xtext(value: str) -> str:
    """RFC 3461 section 4: what is not printable ASCII, and `+` and `=`, becomes +XX."""
    coded = (chr(c) if 33 <= c <= 126 and chr(c) not in "+=" else f"+{c:02X}" for c in value.encode())
    return "".join(coded)


class Session:
    """One SMTP connection; `banner` is the greeting. Keywords are XCLIENT attributes."""

    def __init__(self, port: int, host: str = "127.0.0.1", **xclient: str) -> None:
        self._socket: socket.socket = socket.create_connection((host, port), TIMEOUT)
        self._file = self._socket.makefile("rb")
        with ExitStack() as unfinished:
            unfinished.callback(self.close)
            self.banner = self._greeting()
            if xclient:
                self.ehlo("xclient.invalid")
                self.banner = self.xclient(**xclient)
            unfinished.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up without a word."""
        self._file.close()
        self._socket.close()

    def reply(self) -> str:
        """The next reply; empty when the server hung up."""
        lines: list[str] = []
        while raw := self._file.readline():
            lines.append(raw.decode("utf-8", "replace").rstrip("\r\n"))
            if not re.match(r"\d{3}-", lines[-1]):
                break
        return "\n".join(lines)

    def _greeting(self) -> str:
        if greeting := self.reply():
            return greeting
        raise ConnectionResetError("no greeting")

    def command(self, line: str) -> str:
        """One command, its reply. Bytes that are not UTF-8 come as surrogates."""
        self._socket.sendall(line.encode("utf-8", "surrogateescape") + b"\r\n")
        return self.reply()

    def ehlo(self, name: str = "client.example") -> str:
        """EHLO, with the name that the client gives itself."""
        return self.command(f"EHLO {name}")

    def helo(self, name: str = "client.example") -> str:
        """HELO: plain SMTP."""
        return self.command(f"HELO {name}")

    def xclient(self, **attributes: str) -> str:
        """XCLIENT name=, addr=, port=, proto=, helo=, login=, ...; the session starts again."""
        reply = self.try_xclient(**attributes)
        if not reply.startswith("220"):
            raise OracleError(f"XCLIENT: expected 220, got {reply!r}")
        return reply

    def try_xclient(self, **attributes: str) -> str:
        """The same, whatever the reply."""
        said = (f"{name.upper()}={self._xclient_value(name, value)}" for name, value in attributes.items())
        return self.command("XCLIENT " + " ".join(said))

    @staticmethod
    def _xclient_value(name: str, value: str) -> str:
        if value in ("[UNAVAILABLE]", "[TEMPUNAVAIL]"):
            return value
        is_ipv6 = name in ("addr", "destaddr") and ":" in value
        return f"IPV6:{value}" if is_ipv6 else xtext(value)

    def auth(self, login: str, password: str = "secret") -> str:
        """AUTH PLAIN."""
        plain = base64.b64encode(f"\0{login}\0{password}".encode())
        return self.command(f"AUTH PLAIN {plain.decode()}")

    def mail(self, sender: str, parameters: str = "") -> str:
        """MAIL FROM; an empty sender is the null sender."""
        return self.command(f"MAIL FROM:<{sender}>{parameters and ' ' + parameters}")

    def rcpt(self, recipient: str, parameters: str = "") -> str:
        """RCPT TO."""
        return self.command(f"RCPT TO:<{recipient}>{parameters and ' ' + parameters}")

    def data(self, message: bytes = MESSAGE) -> str:
        """DATA and the message; the last reply that there was."""
        reply = self.command("DATA")
        return self.message(message) if reply.startswith("354") else reply

    def message(self, message: bytes = MESSAGE) -> str:
        """What DATA was answered 354 for, and the dot behind it."""
        self._socket.sendall(re.sub(rb"(?m)^\.", b"..", message) + b".\r\n")
        return self.reply()

    def bdat(self, chunk: bytes = MESSAGE, *, last: bool = True) -> str:
        """BDAT (RFC 3030): a chunk of the message, as it stands."""
        self._socket.sendall(f"BDAT {len(chunk)}{' LAST' if last else ''}\r\n".encode() + chunk)
        return self.reply()

    def starttls(self, context: ssl.SSLContext, server_name: str = "") -> str:
        """STARTTLS (RFC 3207): from here on encrypted; EHLO comes next. The name is sent as SNI."""
        reply = self.command("STARTTLS")
        if reply.startswith("220"):
            self._file.close()
            self._socket = context.wrap_socket(self._socket, server_hostname=server_name or None)
            self._file = self._socket.makefile("rb")
        return reply

    def rset(self) -> str:
        """RSET: the next transaction."""
        return self.command("RSET")

    def quit(self) -> str:
        """QUIT."""
        return self.command("QUIT")
