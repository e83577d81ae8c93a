r"""Records the requests of a Postfix: `python -m tests.requests.record [--built FOLDER]`.

It runs a private Postfix (ldappolicy.oracle), the installed one or one that was built in FOLDER, has every
situation of `situations` said to it, and writes what it asked to tests/requests/VERSION/SITUATION.request.
Every restriction list asks; the answer is always DUNNO. What is recorded is not interpreted here.

A Postfix is built for this in its source folder, with nothing installed (Postfix INSTALL section 4):

    make makefiles shared=no dynamicmaps=no default_database_type=lmdb default_cache_db_type=lmdb \
        CCARGS='-DUSE_TLS -DNO_DB -DNO_NIS -DUSE_SASL_AUTH -DDEF_SERVER_SASL_TYPE=\"dovecot\"' \
        AUXLIBS='-lssl -lcrypto' && make
"""

import argparse
import socketserver
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import trustme

from ldappolicy.oracle import postfix
from ldappolicy.oracle.postfix import Postfix
from ldappolicy.oracle.serving import serving
from ldappolicy.oracle.smtp import MESSAGE, Session
from tests.labs.postfix import SITE
from tests.labs.slapd import wait_until
from tests.requests.situations import SITUATIONS, Situation

FOLDER = Path(__file__).parent

# So that every state asks: each list when its command comes. The rest asks at RCPT (postconf(5)).
EVERY_LIST = ("client", "helo", "sender", "recipient", "data", "end_of_data", "etrn")
RELAY = "permit_sasl_authenticated, reject_unauth_destination"


class PolicyService:
    """Keeps the bytes of every request, as they came, and answers DUNNO."""

    def __init__(self) -> None:
        self.recorded: list[bytes] = []
        self.server = _Server(("127.0.0.1", 0), _Connection)
        self.server.policy = self
        self.name = f"inet:127.0.0.1:{self.server.server_address[1]}"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    policy: PolicyService


class _Connection(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        """A request ends with an empty line; Postfix sends the next one when it has the answer."""
        lines: list[bytes] = []
        for line in self.rfile:
            lines.append(line)
            if line == b"\n":
                self.server.policy.recorded.append(b"".join(lines))
                lines.clear()
                self.wfile.write(b"action=DUNNO\n\n")


class Certificates:
    """A server certificate, and what clients show: made anew for each run, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.ca, self.server = folder / "ca.pem", folder / "server.pem"
        authority = trustme.CA(organization_name="Example CA", organization_unit_name="Tests")
        authority.cert_pem.write_to_path(self.ca)
        server = authority.issue_cert(SITE["myhostname"])
        server.private_key_and_cert_chain_pem.write_to_path(self.server)
        client = authority.issue_cert("amy@my.domain", common_name="Amy Ander+x=y")
        # An authority has signed itself; nothing else here signs with this one.
        stranger = trustme.CA(organization_name="Stranger", organization_unit_name="Tests")
        files = {name: folder / f"{name}.pem" for name in ("trusted", "self-signed")}
        client.private_key_and_cert_chain_pem.write_to_path(files["trusted"])
        stranger.private_key_pem.write_to_path(files["self-signed"])
        stranger.cert_pem.write_to_path(files["self-signed"], append=True)
        self.clients = {"none": self._context(None)}
        self.clients |= {name: self._context(file) for name, file in files.items()}

    def _context(self, certificate: Path | None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca)
        if certificate is not None:
            context.load_cert_chain(certificate)
        return context

    def main(self) -> dict[str, str]:
        """The main.cf parameters; without a table of names smtpd does not care for SNI."""
        return {
            "smtpd_tls_security_level": "may",
            "smtpd_tls_chain_files": str(self.server),
            "smtpd_tls_CAfile": str(self.ca),
            "smtpd_tls_ask_ccert": "yes",
            "tls_server_sni_maps": f"inline:{{ {{ {SITE['myhostname']} = {self.server} }} }}",
        }


def services(policy: str) -> dict[str, Mapping[str, str]]:
    """The smtpd services that ask a policy service at different times and with different arguments."""
    ask = f"check_policy_service {policy}"
    early = {f"smtpd_{name}_restrictions": ask for name in EVERY_LIST}
    early |= {"smtpd_delay_reject": "no", "smtpd_relay_restrictions": RELAY}
    context = f"check_policy_service {{ {policy}, policy_context=plain/recipient }}"
    late = {"smtpd_delay_reject": "yes", "smtpd_relay_restrictions": f"{ask}, {RELAY}"}
    return {
        "early": early,
        "context": {**early, "smtpd_recipient_restrictions": context},
        "stress": {**early, "stress": "yes"},
        "bytes": {**early, "smtputf8_enable": "no"},
        "late": {**early, **late},
    }


class Recorder:
    """A Postfix, the policy service that it asks, and the client."""

    def __init__(self, running: Postfix, policy: PolicyService, certificates: Certificates) -> None:
        self._postfix = running
        self._policy = policy
        self._certificates = certificates

    def record(self, situation: Situation) -> bytes:
        """The requests of the last step, one behind the other."""
        self._policy.recorded.clear()
        with self._postfix.session(situation.service) as smtp:
            for step in situation.dialogue:
                self._policy.recorded.clear()
                reply = self._say(smtp, step, situation)
                if reply[:1] not in ("2", "3"):
                    raise AssertionError(f"{step!r}: expected 2xx or 3xx, got {reply!r}")
            return b"".join(self._policy.recorded)

    def _say(self, smtp: Session, step: str, situation: Situation) -> str:
        verb, _, argument = step.partition(" ")
        match verb:
            case "XCLIENT":
                return smtp.xclient(**situation.client)
            case "STARTTLS":
                return smtp.starttls(self._certificates.clients[argument], SITE["myhostname"])
            case "AUTH":
                return smtp.auth(argument)
            case "BDAT":
                return smtp.bdat(last=argument == "LAST")
            case ".":
                return smtp.message(MESSAGE)
        return smtp.command(step)


@contextmanager
def recorder(built: Path | None = None) -> Iterator[Recorder]:
    """A recorder whose Postfix runs, the installed one or that which was built there."""
    policy = PolicyService()
    with serving(policy.server), tempfile.TemporaryDirectory() as folder:
        certificates = Certificates(Path(folder))
        main = {**SITE, **certificates.main(), "fast_flush_domains": "my.domain"}
        asking = services(policy.name)
        with Postfix(asking, main, built=built) as running:
            # Each was connected to once, to see whether it is up, and may have asked because of that.
            wait_until(lambda: len(running.log("disconnect from")) >= len(asking))
            yield Recorder(running, policy, certificates)


def main() -> None:
    """Writes a file for each situation."""
    parser = argparse.ArgumentParser(prog="python -m tests.requests.record")
    parser.add_argument("--built", type=Path, metavar="FOLDER", help="where another Postfix was built")
    built = parser.parse_args().built
    folder = FOLDER / postfix.version(built)
    folder.mkdir(exist_ok=True)
    with recorder(built) as recording:
        for name, situation in SITUATIONS.items():
            requests = recording.record(situation)
            (folder / f"{name}.request").write_bytes(requests)
            print(f"{folder.name}/{name}: {requests.count(b'request=')}")


if __name__ == "__main__":
    main()
