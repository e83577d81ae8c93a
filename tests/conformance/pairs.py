"""A pair: a policy and one SMTP session, as data; and what both are to Postfix and to the directory.

The same lists, classes and tables become main.cf with texthash(5) and cidr(5) tables, and directory objects.
`%t%` in a list stands for the table t. What the directory alone has (directory:access, the recipient:
tables, tables of members, owners of addresses) is written out for Postfix: a table of addresses for each.
All pairs share one site: people, groups, lists and domains, on which a pair puts its values.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ldappolicy.ldif import format_record
from tests.conformance import BASE, LOCAL_DOMAINS, LOCAL_TABLE, MAIN, PEOPLE, POLICY_BASE

LISTS = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn")

SITE_MAIN = {
    **MAIN,
    "myorigin": "$mydomain",
    "relay_clientcerts": "inline:{x=y}",
    "permit_mx_backup_networks": "198.51.100.0/24",
    "fast_flush_domains": "$relay_domains",
    # A process that came to grief is started again at once.
    "service_throttle_time": "1s",
}

DNS = {
    **{(f"{name}.example", "MX"): [f"10 mx.{name}.example"] for name in ("outside", "sub.outside", "local")},
    **{(f"mx.{name}.example", "A"): ["203.0.113.5"] for name in ("outside", "sub.outside", "local")},
    ("backup.example", "MX"): ["10 mx.backup.example", "20 mx.test.example"],
    ("mx.backup.example", "A"): ["198.51.100.1"],
    ("mx.test.example", "A"): ["127.0.0.1"],
    ("relay.example", "A"): ["203.0.113.6"],
    ("helo.outside.example", "A"): ["203.0.113.9"],
    ("66.2.0.192.rbl.example", "A"): ["127.0.0.2"],
    ("66.2.0.192.rbl.example", "TXT"): ["listed"],
    ("outside.example.rhsbl.example", "A"): ["127.0.0.2"],
    ("9.113.0.203.dnswl.example", "A"): ["127.0.0.2"],
    ("outside.example.rhswl.example", "A"): ["127.0.0.2"],
    ("mail.outside.example.rhswl.example", "A"): ["127.0.0.2"],
}
SERVFAIL = {"servfail"}

Names = Mapping[str, tuple[str, ...]]

# Who there is: a login and addresses; groups and lists of them; domains.
LOGINS = {"amy": "amy", "bob": "bob", "cal": "cal"}
ADDRESSES = {
    "amy": ("amy@local.example", "amy.alias@relay.example"),
    "bob": ("bob@local.example",),
    "cal": ("cal@sub.relay.example",),
    "all": ("all@local.example",),
    "news": ("news@relay.example",),
}
MEMBERS: Names = {"team": ("bob",), "staff": ("amy", "team"), "all": ("staff",), "news": ("cal",)}
OWNERS: Names = {"all": ("amy",), "news": ("team",)}
MODERATORS: Names = {"all": ("bob",), "news": ("amy",)}
ALLOWED: Names = {"all": ("outside.example", "cal@sub.relay.example"), "news": ("bob@",)}
ALLOWED_DN: Names = {"all": ("staff",), "news": ("cal",)}
DENIED: Names = {"all": ("sub.outside.example",), "news": ("amy@local.example",)}
DENIED_DN: Names = {"all": ("bob",), "news": ()}
PATTERNS: Mapping[str, Names] = {"allowed": ALLOWED, "denied": DENIED}
SEND_AS: Names = {"all": ("bob",), "outside.example": ("team",)}
DOMAINS = ("local.example", "outside.example", "relay.example")
STRANGERS = ("eve", "zoe@outside.example")
"""Logins that nobody has."""

EXTRA = re.compile(r"(check_\w+_access)\s+(directory|recipient):(\w+)", re.IGNORECASE)

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """Lines of a table; or (`kind` member, url) an action for the addresses of `members`."""

    kind: str = "hash"
    lines: tuple[tuple[str, str], ...] = ()
    members: tuple[str, ...] = ()
    action: str = ""


@dataclass(frozen=True)
class Transaction:
    """MAIL, RCPT for each recipient, and the message itself if `data`."""

    sender: str
    recipients: tuple[str, ...]
    data: bool = False


@dataclass(frozen=True)
class Session:
    """One connection: who the client is, what it says."""

    client: dict[str, str]
    helo: str | None
    login: str
    transactions: tuple[Transaction, ...]
    vrfy: str = ""
    etrn: str = ""


@dataclass(frozen=True)
class Pair:
    """A policy (`lists` by short name) and a session. `site` has values for entries of the site."""

    lists: dict[str, str]
    classes: dict[str, str]
    tables: dict[str, Table]
    site: dict[str, dict[str, str]]
    session: Session
    parents: bool = True
    delimiter: str = "+"
    delay_reject: bool = True
    knows_networks: bool = True
    knows_domains: bool = True
    seen: tuple[str, ...] = field(default=(), compare=False)
    """What it was made of, for the report."""

    def to_json(self) -> dict[str, Any]:
        """For regressions.json; `from_json` reads it."""
        return {name: value for name, value in asdict(self).items() if name != "seen"}

    @classmethod
    def from_json(cls, text: Mapping[str, Any]) -> Self:
        """A pair that was written by `to_json`."""
        said = dict(text["session"])
        said["transactions"] = tuple(
            Transaction(one["sender"], tuple(one["recipients"]), one["data"]) for one in said["transactions"]
        )
        tables = {
            name: Table(one["kind"], tuple(map(tuple, one["lines"])), tuple(one["members"]), one["action"])
            for name, one in text["tables"].items()
        }
        return cls(**{**text, "session": Session(**said), "tables": tables})

    def __str__(self) -> str:
        return json.dumps(self.to_json(), ensure_ascii=False, indent=1)

    @property
    def text(self) -> str:
        """All restrictions that it has anywhere, for what has to be known about it."""
        values = [value for table in self.tables.values() for _, value in table.lines]
        values += [table.action for table in self.tables.values()]
        values += [value for entry in self.site.values() for value in entry.values()]
        return " ".join([*self.lists.values(), *self.classes.values(), *values])


def people_in(name: str) -> frozenset[str]:
    """The people and lists that a name means: somebody, or the members of a group at any depth."""
    found = {name}
    for member in MEMBERS.get(name, ()):
        found |= people_in(member)
    return frozenset(found)


def persons(names: tuple[str, ...]) -> list[str]:
    """Everybody with an address whom the names mean."""
    return sorted(one for one in set().union(*map(people_in, names)) if one in ADDRESSES)


# --- for Postfix --------------------------------------------------------------------------------------


class Native:
    """main.cf parameters and table files of a pair; `folder` is where the files will be."""

    def __init__(self, pair: Pair, folder: str) -> None:
        self.pair = pair
        self.folder = folder
        self.files: dict[str, Rows] = {}
        self.classes: dict[str, str] = {}
        for name, table in pair.tables.items():
            self.files[name] = list(table.lines) or self._of_members(table)
        for name, text in pair.classes.items():
            self.classes[name] = self.put(text)
        self.lists = {name: self.put(text) for name, text in pair.lists.items()}
        self.files["login_maps"] = list(owners())
        for name, rows in self.files.items():
            if name not in pair.tables:
                # texthash(5) takes no key twice.
                self.files[name] = list(dict(rows).items())

    def parameters(self) -> dict[str, str]:
        """What main.cf says for this pair."""
        listed = ", smtpd_access_maps" if self.pair.parents else ""
        own = {f"native_{name}": self.lists.get(name, "") for name in LISTS}
        # smtpd does not start without a `reject` in its relay or recipient restrictions: here is one, as
        # the name of a list in the DNS that has nothing.
        own["native_relay"] = f"reject_rbl_client reject, {own['native_relay']}"
        return {
            **own,
            "smtpd_sender_login_maps": f"texthash:{self.folder}/login_maps",
            "parent_domain_matches_subdomains": f"debug_peer_list, mynetworks, relay_domains{listed}",
            "recipient_delimiter": self.pair.delimiter,
            "smtpd_delay_reject": "yes" if self.pair.delay_reject else "no",
            "native_classes": " ".join(self.classes),
            **self.classes,
        }

    def put(self, text: str) -> str:
        """A list with the tables' files for their names."""
        for name, table in self.pair.tables.items():
            kind = "cidr" if table.kind == "cidr" else "texthash"
            text = text.replace(f"%{name}%", f"{kind}:{self.folder}/{name}")
        return EXTRA.sub(lambda found: self._extra(*(part.lower() for part in found.groups())), text)

    def _extra(self, check: str, kind: str, name: str) -> str:
        """A check of a table that only a directory has."""
        subject = check.removeprefix("check_").removesuffix("_access")
        if kind == "directory":
            self.files[f"directory_{subject}"] = list(self._access(subject))
            return f"{check} texthash:{self.folder}/directory_{subject}"
        by_list = [(ADDRESSES[one][0], self._of_list(one, name, subject)) for one in ("all", "news")]
        self.files[f"{name}_{subject}"] = by_list
        return f"check_recipient_access texthash:{self.folder}/{name}_{subject}"

    def _of_list(self, one: str, name: str, subject: str) -> str:
        """A class that finds who is a member of this list, or whatever else."""
        action = "REJECT" if name == "denied" else "OK"
        named = {
            "members": MEMBERS[one],
            "owners": OWNERS[one],
            "moderators": MODERATORS[one],
            "allowed": ALLOWED_DN[one],
            "denied": DENIED_DN[one],
        }[name]
        people = [who for who in persons(named) if not (name == "members" and who == one)]
        patterns = PATTERNS.get(name, {}).get(one, ())
        rows = self._keys(people, subject, action)
        if subject == "sasl":
            logins = [(login, who) for who, login in LOGINS.items()] + [(who, "") for who in STRANGERS]
            rows += [(login, action) for login, who in logins if self._match(login, who, patterns)]
        else:
            rows += [(pattern, action) for pattern in patterns]
        called = f"{name}_{subject}_{one}"
        self.files[called] = rows
        self.classes[called] = f"check_{subject}_access texthash:{self.folder}/{called}"
        return called

    def _match(self, login: str, who: str, patterns: tuple[str, ...]) -> bool:
        """Whether one of the patterns is an access(5) key of the login, or of an address of its entry."""
        keys: set[str] = set()
        for address in (login, *ADDRESSES.get(who, ())):
            local, at, domain = address.rpartition("@")
            keys |= {address, domain, f"{local}@"} if at else {address}
            labels = domain.split(".")
            dot = "" if self.pair.parents else "."
            keys |= {dot + ".".join(labels[at:]) for at in range(1, len(labels))}
        return not keys.isdisjoint(patterns)

    def _of_members(self, table: Table) -> Rows:
        """A table of members as addresses and logins; a search yields addresses alone."""
        kind = "sasl" if table.kind == "member" else "sender"
        return list(dict(self._keys(persons(table.members), kind, table.action)).items())

    @staticmethod
    def _keys(people: list[str], subject: str, action: str) -> Rows:
        addresses = [(address, action) for who in people for address in ADDRESSES[who]]
        if subject != "sasl":
            return addresses
        return [(LOGINS[who], action) for who in people if who in LOGINS] + addresses

    def _access(self, subject: str) -> Iterator[tuple[str, str]]:
        """directory:access as lines: of people by themselves or their groups, then of domains."""
        what = "Recipient" if subject == "recipient" else "Sender"
        domains = {one: self.pair.site.get(one, {}).get(f"smtpd{what}Access") for one in DOMAINS}
        for who, addresses in ADDRESSES.items():
            value = self._value(who, what)
            if subject == "sasl":
                value = value or self._of_domain(addresses[0].partition("@")[2], domains)
            if value is not None:
                yield from self._keys([who], subject, value)
        if subject == "sasl":
            for stranger in STRANGERS:
                value = self._of_domain(stranger.partition("@")[2], domains)
                if value is not None:
                    yield stranger, value
            return
        for domain, value in domains.items():
            if value is not None:
                yield domain, value
                yield f".{domain}", value

    def _value(self, who: str, what: str) -> str | None:
        own = self.pair.site.get(who, {}).get(f"smtpd{what}Access")
        if own is not None:
            return own
        groups = [
            (int(entry.get("smtpdPriority", 10**9)), name, entry[f"smtpdMember{what}Access"])
            for name, entry in self.pair.site.items()
            if name in MEMBERS and f"smtpdMember{what}Access" in entry and who in people_in(name) - {name}
        ]
        return min(groups)[2] if groups else None

    @staticmethod
    def _of_domain(domain: str, domains: Mapping[str, str | None]) -> str | None:
        labels = domain.split(".")
        parents = (".".join(labels[at:]) for at in range(len(labels)))
        return next((found for parent in parents if (found := domains.get(parent)) is not None), None)


def owners() -> Iterator[tuple[str, str]]:
    """smtpd_sender_login_maps: every address of the site is somebody's."""
    for who, addresses in ADDRESSES.items():
        logins = _logins([who, *persons(SEND_AS.get(who, ()))])
        for address in addresses:
            yield address, logins or "nobody,"
    for domain in DOMAINS:
        if domain in SEND_AS:
            yield f"@{domain}", _logins(persons(SEND_AS[domain]))


def _logins(people: list[str]) -> str:
    """Their logins; an address of somebody who logs in is a login as well."""
    return ",".join(login for who in people if who in LOGINS for login in (LOGINS[who], *ADDRESSES[who]))


# --- for the directory --------------------------------------------------------------------------------


def dn_of(name: str) -> str:
    """The DN of somebody or something of the site."""
    if name in DOMAINS:
        return f"dc={name},{BASE}"
    return f"{'uid' if name in LOGINS else 'cn'}={name},{PEOPLE}"


def entries(pair: Pair, name: str) -> Iterator[str]:
    """The whole directory of a pair, as LDIF; its policy is called `name`."""
    yield format_record(BASE, [("objectClass", ["domain"]), ("dc", ["test"])])
    for ou in ("people", "policy"):
        yield format_record(f"ou={ou},{BASE}", [("objectClass", ["organizationalUnit"]), ("ou", [ou])])
    yield _policy_object("smtpdPolicy", "default", [("smtpdRecipientRestrictions", ["permit"])])
    yield _policy_object("smtpdPolicy", name, list(_policy(pair)))
    yield _policy_object(
        "smtpdAccessTable", LOCAL_TABLE, [("smtpdAccess", [f"{domain} OK" for domain in LOCAL_DOMAINS])]
    )
    for cn, text in pair.classes.items():
        yield _policy_object("smtpdRestrictionClass", cn, [("smtpdRestrictions", [_ldap(pair, text)])])
    for cn, table in pair.tables.items():
        yield _policy_object("smtpdAccessTable", cn, list(_table(table)))
    for one in (*LOGINS, *MEMBERS, *DOMAINS):
        yield format_record(dn_of(one), list(_site_entry(pair, one)))


def _policy_object(kind: str, cn: str, attributes: list[tuple[str, list[str]]]) -> str:
    return format_record(f"cn={cn},{POLICY_BASE}", [("objectClass", [kind]), ("cn", [cn]), *attributes])


def _ldap(pair: Pair, text: str) -> str:
    for name in pair.tables:
        text = text.replace(f"%{name}%", f"ldap:{name}")
    return text


def _policy(pair: Pair) -> Iterator[tuple[str, list[str]]]:
    for name, text in pair.lists.items():
        attribute = "".join(part.capitalize() for part in name.split("_"))
        if text:
            yield f"smtpd{attribute}Restrictions", [_ldap(pair, text)]
    if pair.knows_networks:
        yield "smtpdMynetworks", [SITE_MAIN["mynetworks"]]
    if pair.knows_domains:
        yield "smtpdLocalDomains", [f"ldap:{LOCAL_TABLE}"]
    yield "smtpdMyorigin", [SITE_MAIN["mydomain"]]
    yield "smtpdParentDomainMatchesSubdomains", ["TRUE" if pair.parents else "FALSE"]
    if pair.delimiter:
        yield "smtpdRecipientDelimiter", [pair.delimiter]


def _table(table: Table) -> Iterator[tuple[str, list[str]]]:
    if table.kind == "cidr":
        yield "smtpdAccessType", ["cidr"]
        numbered = enumerate(table.lines, 1)
        yield "smtpdAccess", [f"{{{at}}} {network} {value}" for at, (network, value) in numbered]
    elif table.kind == "hash":
        yield "smtpdAccess", [f"{key} {value}" for key, value in table.lines]
    else:
        yield "smtpdAccessAction", [table.action]
        if table.kind == "member":
            yield "smtpdAccessMember", [dn_of(name) for name in table.members]
        else:
            named = "".join(f"(employeeNumber={who})" for who in persons(table.members))
            yield "smtpdAccessURL", [f"ldap:///{PEOPLE}?mail?sub?(|{named})"]


def _site_entry(pair: Pair, name: str) -> Iterator[tuple[str, list[str]]]:
    if name in DOMAINS:
        yield "objectClass", ["domain", "domainRelatedObject", "smtpdAccessControl"]
        yield "dc", [name]
        yield "associatedDomain", [name]
    elif name in LOGINS:
        yield "objectClass", ["inetOrgPerson", "smtpdAccessControl"]
        yield from ((attribute, [name]) for attribute in ("cn", "sn"))
        yield "uid", [LOGINS[name]]
    else:
        yield "objectClass", ["groupOfNames", "smtpdAccessControl"]
        yield "cn", [name]
        yield "member", [dn_of(member) for member in MEMBERS[name]]
    if name in ADDRESSES:
        yield "mail", list(ADDRESSES[name])
        yield "employeeNumber", [name]
    named: Mapping[str, Names] = {
        "owner": OWNERS,
        "smtpdModerator": MODERATORS,
        "smtpdAllowedSenderDN": ALLOWED_DN,
        "smtpdDeniedSenderDN": DENIED_DN,
        "smtpdSendAs": SEND_AS,
    }
    for attribute, table in named.items():
        if table.get(name):
            yield attribute, [dn_of(one) for one in table[name]]
    for what, patterns in PATTERNS.items():
        if name in patterns:
            yield f"smtpd{what.capitalize()}Sender", list(patterns[name])
    yield from ((attribute, [value]) for attribute, value in pair.site.get(name, {}).items())
