"""The private Postfix: the main.cf's own lists, classes and tables, and beside them a call to the service.

What decides about access is carried over as it stands (postconf(5)); what would leave the machine, or needs
its users, is not: transports, filters, alias and transport maps, TLS. smtpd_delay_reject is yes, since who
asks would else be refused for its own address before it can say for whom. Tables that postmap(1) makes are
made anew, from the text, by the postmap(1) of the private Postfix.

What only the host knows is chosen here. Where a table asks a server, nothing is asked: in a list it is a
table that fails, elsewhere it is left away; so are other policy services (check_policy_service).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from ldappolicy import vocabulary
from ldappolicy.action import split_list
from ldappolicy.importing.sources import INDEXED
from ldappolicy.main_cf import Definition, MainCf
from ldappolicy.oracle.programs import configure, make_old, program, run, table_types
from ldappolicy.policy import PARAMETERS
from ldappolicy.verification.questions import LISTED, STRANGER, Key

NATIVE, OURS = "native", "ours"
"""The two smtpd, by the names of their services."""

CARRIED = (
    *("compatibility_level", "myhostname", "mydomain", "myorigin", "mydestination", "mynetworks"),
    *("mynetworks_style", "proxy_interfaces", "relay_domains", "relay_recipient_maps", "recipient_delimiter"),
    *("virtual_alias_domains", "virtual_alias_maps", "virtual_mailbox_domains", "virtual_mailbox_maps"),
    *("parent_domain_matches_subdomains", "append_at_myorigin", "append_dot_mydomain", "swap_bangpath"),
    *("allow_percent_hack", "allow_untrusted_routing", "resolve_dequoted_address", "soft_bounce"),
    *("smtpd_relay_before_recipient_restrictions", "smtpd_null_access_lookup_key"),
    *("smtpd_reject_unlisted_recipient", "smtpd_reject_unlisted_sender", "smtpd_sender_login_maps"),
    *("permit_mx_backup_networks", "relay_clientcerts", "default_database_type", "smtputf8_enable"),
    *("unknown_address_tempfail_action", "unknown_helo_hostname_tempfail_action"),
    *("reject_tempfail_action", "unverified_sender_tempfail_action", "unverified_recipient_tempfail_action"),
)
"""Parameters that both smtpd have as the main.cf has them, and every `..._code`."""

PRIVATE = {
    # A question has its number for the port of its client, for what is logged of it.
    "smtpd_client_port_logging": "yes",
    "smtpd_authorized_xclient_hosts": "0.0.0.0/0, [::]/0",
    "smtpd_hard_error_limit": "1000000",
    "smtpd_soft_error_limit": "1000000",
    "smtpd_junk_command_limit": "1000000",
    "smtpd_timeout": "300s",
    # Who verifies an address gets no answer at first: what differs is asked again.
    "address_verify_poll_count": "1",
    "address_verify_map": "",
    "service_throttle_time": "1s",
}

HOST = {"myhostname": "mx.host.example", "mynetworks": "127.0.0.0/8"}
"""What only the host knows, for a main.cf that does not say."""

_MADE = ("hash", "lmdb", "btree", "cdb")
_ASKS = frozenset(
    ("ldap", "mysql", "pgsql", "sqlite", "memcache", "mongodb", "tcp", "socketmap", "nis", "nisplus")
)
_TABLE = re.compile(r"(?<![\w.:])(?P<proxy>(?:proxy:)*)(?P<type>[a-z]+):(?P<name>[^\s,{}\"]+)")
_POLICY_SERVICE = re.compile(r"\bcheck_policy_service[\s,]+(?:\{[^{}]*\}|[^\s,]+)", re.IGNORECASE)


def of_this_host(main: MainCf) -> MainCf:
    """The main.cf with what only the host knows."""
    chosen = {
        name: Definition(value, str(main.path)) for name, value in HOST.items() if not main.is_set(name)
    }
    return replace(main, definitions={**main.definitions, **chosen})


def parameters(main: MainCf, folder: Path) -> dict[str, str]:
    """main.cf of the private Postfix; its tables are made in the folder, which smtpd may read."""
    tables = Tables(folder)
    names = [*CARRIED, *(name for name in main.definitions if name.endswith("_code"))]
    found = {name: tables.put(main.get(name)) for name in names if main.is_set(name)}
    found["compatibility_level"] = main.get("compatibility_level")
    classes = [name for name in split_list(main.get("smtpd_restriction_classes")) if main.is_set(name)]
    found["smtpd_restriction_classes"] = " ".join(classes)
    lists = [*PARAMETERS.values()]
    found |= {name: tables.put_list(main.get(name)) for name in (*classes, *lists)}
    tables.make_old()
    return {**{name: value.replace("$", "$$") for name, value in found.items()}, **PRIVATE}


def calls(server: str, policy: str, lists: Iterable[str]) -> dict[str, str]:
    """What the other smtpd has instead: each list that decides anything asks the service for itself."""
    found = dict.fromkeys(PARAMETERS.values(), "") | {"smtpd_restriction_classes": ""}
    for name in lists:
        call = f"check_policy_service {{ {server}, timeout=20s, policy_context={policy}/{name} }}"
        found[PARAMETERS[name]] = call
    # smtpd does not start without a reject in its relay or recipient restrictions: one that is never met.
    relay = (found["smtpd_relay_restrictions"], "check_client_access static:OK", "reject")
    return found | {"smtpd_relay_restrictions": ", ".join(filter(None, relay))}


class Tables:
    """Copies of tables, made anew, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[tuple[str, str], str] = {}

    def put(self, text: str) -> str:
        """A value with the copies in the place of its tables; those that ask a server are gone."""
        return _TABLE.sub(lambda found: self._table(found, ""), text)

    def put_list(self, text: str) -> str:
        """The same of a list of restrictions: what asks a server fails."""
        text = _POLICY_SERVICE.sub("check_client_access fail:check_policy_service", text)
        return _TABLE.sub(lambda found: self._table(found, f"fail:{found['type']}"), text)

    def _table(self, found: re.Match[str], instead: str) -> str:
        kind, name = found["type"], found["name"]
        if kind in _ASKS:
            return instead
        path = Path(name)
        if kind not in INDEXED | {"cidr", "pcre", "regexp"} or not (path.is_absolute() and path.is_file()):
            return f"{kind}:{name}"
        if (kind, name) not in self._made:
            self._made[kind, name] = self._copy(kind, name)
        return self._made[kind, name]

    def _copy(self, kind: str, name: str) -> str:
        copy = self._folder / f"{len(self._made) + 1}"
        copy.write_bytes(Path(name).read_bytes())
        if kind in INDEXED and kind != "texthash":
            known = table_types()
            kind = kind if kind in known else next((one for one in _MADE if one in known), "texthash")
        if kind in _MADE:
            if not (self._folder / "main.cf").exists():
                configure(self._folder, {"compatibility_level": "3.6"})
            make_old(copy)
            run(program("postmap"), "-c", self._folder, f"{kind}:{copy}", timeout=60)
        return f"{kind}:{copy}"

    def make_old(self) -> None:
        """Postfix waits for a file that was written just now, and warns of an index older than its text."""
        for path in self._folder.iterdir():
            make_old(path, seconds=60 if path.suffix else 120)


# ---------------------------------------------------------------- the DNS


def records(main: MainCf, keys: Iterable[Key]) -> Mapping[tuple[str, str], list[str]]:
    """The domains of keys are there, with a mail server; all else is not. One client is on every list."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in (STRANGER, *(key.text.rpartition("@")[2].strip(".") for key in keys)):
        if name.isascii() and re.fullmatch(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*", name):
            found[name, "MX"] = [f"10 mx.{name}"]
            found[name, "A"] = found[f"mx.{name}", "A"] = ["198.18.1.1"]
    reverse = ".".join(reversed(LISTED.address.split(".")))
    for domain in _dns_lists(main):
        found[f"{reverse}.{domain}", "A"] = ["127.0.0.2"]
    return found


def _dns_lists(main: MainCf) -> Iterator[str]:
    classes = split_list(main.get("smtpd_restriction_classes"))
    for parameter in (*classes, *PARAMETERS.values()):
        tokens = split_list(main.get(parameter))
        for name, argument in pairwise(tokens):
            if name.lower() in vocabulary.WITH_DOMAIN and argument.isascii():
                yield argument.partition("=")[0].casefold()
