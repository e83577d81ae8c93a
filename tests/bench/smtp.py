"""Rows of RCPTs a second in front of a real, private Postfix: what does each way to say the rules cost there?

No checks; `hash:` tables and restriction classes; the same with `ldap:` tables, a lookup each time; a policy
service that does nothing; the service. The service and the `ldap:` tables ask one private slapd, with the
service's mirror of it as `mode = "auto"` has it. Two kinds of mail: 50 recipients each, ordinary and
internal, nothing refused; and one recipient each, the whole mix of requests.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ldappolicy.oracle import postfix as oracle
from ldappolicy.oracle.programs import configure, make_old, program, run, table_types
from tests.bench.kit import Kit, Part
from tests.bench.load import Run, in_turn
from tests.bench.services import ldappolicy, policyecho
from tests.bench.table import Row, rate
from tests.labs.ldappolicy import Value
from tests.labs.postfix import Postfix
from tests.labs.server import are_installed
from tests.labs.slapd import SUFFIX, Slapd

SESSIONS = 10
MANY = 50
CHECKED = 500
"""Requests whose answers are compared one by one, before the clock starts."""

NAMES = {
    "none": "no checks",
    "hash": "hash: tables and classes",
    "ldap": "ldap: tables and classes",
    "echo": "policyecho",
    "ours": "ldappolicy",
}
DECIDING = ("hash", "ldap", "ours")
FREE = str(10**9)
# RSET counts as junk, a refusal as an error: a session of ours is one long load.
MAIN = {
    "mydestination": "example.com",
    "mynetworks": "127.0.0.0/8",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    **dict.fromkeys(("smtpd_soft_error_limit", "smtpd_hard_error_limit", "smtpd_junk_command_limit"), FREE),
}

Parameters = dict[str, str]


def lacking() -> str:
    """What it takes; empty: nothing is missing."""
    if reason := oracle.lacking():
        return reason
    if not are_installed("slapd", "slapadd"):
        return "apt-get install slapd ldap-utils"
    missing = {"hash", "ldap"} - table_types()
    return f"no {' and '.join(sorted(missing))} tables: apt-get install postfix-ldap" if missing else ""


def rows(kit: Kit) -> Iterator[Row]:
    """Both kinds of mail."""
    if reason := lacking():
        yield Row("in front of Postfix", f"not measured: {reason}")
        return
    with in_front(kit) as lab:
        wrong = {name: lab.wrong(name) for name in DECIDING}
        internal = f"{MANY} recipients a mail, internal"
        yield from lab.table(internal, dict.fromkeys(DECIDING, 0), kit.internal(), MANY)
        yield from lab.table("1 recipient a mail, all kinds", wrong, kit.whole, 1)


@dataclass(frozen=True, slots=True)
class Lab:
    """A Postfix with a service of its own for each way."""

    kit: Kit
    postfix: Postfix

    def table(self, kind: str, wrong: Mapping[str, int], part: Part, recipients: int) -> Iterator[Row]:
        """All ways in turn, beside the hash tables."""
        contestants = {name: partial(self.run, name, part, recipients) for name in NAMES}
        found = in_turn(self.kit.sizes.rounds, contestants)
        for name, told in NAMES.items():
            row = rate(f"Postfix, {kind}: {told}", found[name], "hash:", found["hash"], " RCPT/s")
            answers = f"{found[name].wrong + wrong[name]}" if name in wrong else ""
            yield Row(row.what, row.measured, row.beside, row.ratio, wrong=answers)

    def run(self, name: str, part: Part, recipients: int) -> Run:
        """One run; replies that no way to say the rules gives are wrong ones."""
        seconds = self.kit.sizes.seconds
        command = [str(self.kit.program("rcptload")), "-t", f"127.0.0.1:{self.postfix.ports[name]}"]
        command += ["-f", str(part.requests), "-c", str(SESSIONS), "-R", str(recipients)]
        command += ["-T", f"{seconds}", "-w", f"{seconds / 2}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"rcptload ended with {done.returncode}: {done.stderr}")
        per_s = re.search(r"(\d+) RCPT/s", done.stdout)
        codes = dict(re.findall(r"^ *(\d+)  (\d{3})$", done.stdout, re.MULTILINE))
        right = {"250"} if recipients > 1 else {"250", "554"}
        strange = sum(int(count) for count, code in codes.items() if code not in right)
        return Run(float(per_s[1]) if per_s else 0.0, wrong=strange)

    def wrong(self, name: str) -> int:
        """How many answers are, one by one."""
        pairs = list(zip(self.kit.pairs, self.kit.answers, strict=True))[:CHECKED]
        with self.postfix.session(name) as smtp:
            smtp.ehlo()
            return sum(self._refuses(smtp.command, *pair) != (answer == "REJECT") for pair, answer in pairs)

    @staticmethod
    def _refuses(command: Callable[[str], str], sender: str, recipient: str) -> bool:
        command(f"MAIL FROM:<{sender}>")
        code = command(f"RCPT TO:<{recipient}>")[:3]
        command("RSET")
        if code not in ("250", "554"):
            raise SystemExit(f"{sender} to {recipient}: expected 250 or 554, got {code}")
        return code == "554"


@contextmanager
def in_front(kit: Kit) -> Iterator[Lab]:
    """slapd, the services, and Postfix before them."""
    with ExitStack() as stack:
        data = kit.tree.read_text()
        slapd = stack.enter_context(Slapd(overlays=("syncprov",), schema="ldappolicy", data=data))
        echo = stack.enter_context(policyecho(kit))
        directory: dict[str, Value] = {"uri": [slapd.uri], "profile": "openldap"}
        ours = stack.enter_context(ldappolicy(kit, sections={"directory": directory}))
        ours.lab.wait_for_log("mirror complete")
        tables = kit.folder / "tables"
        tables.mkdir()
        of_hash, of_ldap = hash_tables(kit, tables), ldap_tables(kit, tables, slapd.uri)
        services = {
            "none": {},
            "hash": of_hash.restrictions,
            "ldap": of_ldap.restrictions,
            "echo": {"smtpd_recipient_restrictions": f"check_policy_service unix:{echo.where[1]}"},
            "ours": {"smtpd_recipient_restrictions": f"check_policy_service unix:{ours.path}"},
        }
        postfix = Postfix(services, {**MAIN, **of_hash.classes, **of_ldap.classes})
        yield Lab(kit, stack.enter_context(postfix))


# ------------------------------------------------------------ the rules natively


@dataclass(frozen=True, slots=True)
class Native:
    """The rules as restriction classes over tables of one kind; the names of the classes begin alike."""

    classes: Parameters
    restrictions: Parameters


def native(kit: Kit, letter: str, table: Callable[[str], str]) -> Native:
    """Restricted senders have a class, and so has each list; `table` is where something is looked up.

    Tables say OK, not DUNNO: in a class that ends in `reject` DUNNO means rejected. An OK ends the list of
    restrictions it stands in: senders and recipients have one each.
    """
    classes = {f"{letter}local": f"check_recipient_access {table('local')}, reject"}
    for entry in kit.directory["lists"].values():
        name = entry["cn"]
        classes[f"{letter}{name}"] = f"check_sender_access {table(name)}, reject"
    restrictions = {
        "smtpd_restriction_classes": ", ".join(classes),
        "smtpd_sender_restrictions": f"check_sender_access {table('senders')}",
        "smtpd_recipient_restrictions": f"check_recipient_access {table('lists')}",
    }
    return Native(classes, restrictions)


def hash_tables(kit: Kit, folder: Path) -> Native:
    """Written and indexed by postmap(1)."""
    directory = kit.directory
    users, lists = directory["users"], directory["lists"]
    texts = {entry["cn"]: dict.fromkeys(entry["members"], "OK") for entry in lists.values()}
    texts["local"] = {directory["domain"]: "OK"}
    texts["senders"] = {address: "hlocal" for address, user in users.items() if user["restricted"]}
    texts["lists"] = {address: f"h{entry['cn']}" for address, entry in lists.items()}
    for name, items in texts.items():
        (folder / name).write_text("".join(f"{key} {value}\n" for key, value in items.items()))
    configure(folder, {"compatibility_level": "3.6"})
    make_old(*folder.iterdir())
    run(program("postmap"), "-c", folder, *(f"hash:{folder / name}" for name in texts))
    make_old(*folder.iterdir())
    return native(kit, "h", lambda name: f"hash:{folder / name}")


def ldap_tables(kit: Kit, folder: Path, uri: str) -> Native:
    """One search each; membership is a search of the list's own entry."""
    domain = kit.directory["domain"]
    people, lists = (f"ou={unit},{SUFFIX}" for unit in ("people", "lists"))
    senders = {"search_base": people, "query_filter": "(&(mail=%s)(smtpdSenderAccess=local_only))"}
    recipients = {"search_base": lists, "query_filter": "(&(mail=%s)(smtpdRecipientAccess=members_only))"}
    member = {"scope": "base", "query_filter": f"(member=uid=%u,{people})"}
    texts: dict[str, Parameters] = {
        "senders": {**senders, "result_attribute": "smtpdSenderAccess", "result_format": "llocal"},
        "lists": {**recipients, "result_attribute": "cn", "result_format": "l%s"},
    }
    for entry in kit.directory["lists"].values():
        base = f"cn={entry['cn']},{lists}"
        texts[entry["cn"]] = {**member, "search_base": base, "result_attribute": "cn", "result_format": "OK"}
    for name, text in texts.items():
        whole = {"server_host": uri, "version": "3", "bind": "no", "domain": domain, **text}
        (folder / f"{name}.cf").write_text("".join(f"{key} = {value}\n" for key, value in whole.items()))
    # The local domain is in main.cf as well: nobody asks a directory for it.
    inline = f"inline:{{ {{ {domain} = OK }} }}"
    return native(kit, "l", lambda name: inline if name == "local" else f"ldap:{folder / name}.cf")
