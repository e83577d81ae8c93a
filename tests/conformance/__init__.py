"""Cases that were run through Postfix alone (smtpd 3.7.11 and 3.12, the same result), as directory entries.

vectors.json: restriction lists, restriction classes and tables of main.cf, one RCPT, and what smtpd answered
(prefixed "MAIL: ", to MAIL). `%t%` stands for the table t. excused.json: what cannot be the same, and why.

Everything becomes one tree. Of the vector A07 its tables become smtpdAccessTable entries (`ldap:A07-t`), its
classes smtpdRestrictionClass entries (`A07_c`), its lists the policy A07, which Postfix asks for with
policy_context=A07. What only Postfix can have (reject codes and the like) stays in main.cf; what a policy
can carry is in the policy as well. smtpd_sender_login_maps become entries with smtpdSendAs under domains of
the vector's own (`a@b.example` is `a@h03.b.example`, in the request too): owners are facts of the directory,
not of a policy.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ldappolicy.ldif import format_record

FOLDER = Path(__file__).parent

BASE = "dc=test,dc=example"
PEOPLE = f"ou=people,{BASE}"
POLICY_BASE = f"ou=policy,{BASE}"

# The lists by the vectors' names for them: the name in policy_context, in main.cf, in the directory.
LISTS = {
    "client": ("client", "smtpd_client_restrictions", "smtpdClientRestrictions"),
    "sender": ("sender", "smtpd_sender_restrictions", "smtpdSenderRestrictions"),
    "relay": ("relay", "smtpd_relay_restrictions", "smtpdRelayRestrictions"),
    "recipient": ("recipient", "smtpd_recipient_restrictions", "smtpdRecipientRestrictions"),
}

# The mail system of the vectors, as main.cf and as a policy say it.
MAIN = {
    "myhostname": "mx.test.example",
    "mydomain": "test.example",
    "mydestination": "local.example, localhost, $myhostname",
    "relay_domains": "relay.example, .sub.relay.example",
    "virtual_mailbox_domains": "vmbox.example",
    "virtual_mailbox_maps": "",
    "virtual_alias_domains": "valias.example",
    "virtual_alias_maps": "inline:{postmaster@valias.example=x@local.example}",
    "mynetworks": "127.0.0.0/8, 10.1.0.0/16, [2001:db8:1::]/48",
    "default_process_limit": "200",
    # See cleanup(8): most of these sessions end before DATA.
    "in_flow_delay": "0",
}
LOCAL_TABLE = "lab-local-domains"
LOCAL_DOMAINS = [
    *("local.example", "localhost", "mx.test.example", "[127.0.0.1]", "[::1]", "[IPv6:::1]"),
    *("relay.example", ".relay.example", ".sub.relay.example", "vmbox.example", "valias.example"),
]
DNS = {
    ("b.example", "A"): ["192.0.2.1"],
    ("mxd.example", "MX"): ["10 mx.mxd.example"],
    ("mx.mxd.example", "A"): ["203.0.113.5"],
    ("66.2.0.192.rbl.example", "A"): ["127.0.0.2"],
    ("66.2.0.192.rbl.example", "TXT"): ["listed"],
}
SERVFAIL = {"servfail"}

# Decides nothing; smtpd does not start without a reject in its relay or recipient restrictions.
NEUTRAL = "check_client_access static:OK, reject"

ACTION = re.compile(
    r"(?:DUNNO|REJECT|DEFER|HANGUP|INFO|WARN|FILTER|HOLD|DISCARD|REDIRECT|BCC|DEFER_IF_PERMIT|DEFER_IF_REJECT"
    r"|PREPEND|OK|RELAY|\d\S*)\b",
    re.IGNORECASE,
)
DESTINATION_TEST = re.compile(r"\b(?:permit_auth|reject_unauth|defer_unauth)_destination\b", re.IGNORECASE)

Attributes = list[tuple[str, list[str]]]


def excused() -> dict[str, str]:
    """The vectors that cannot come out the same, with the reason."""
    reasons: dict[str, str] = json.loads((FOLDER / "excused.json").read_text("utf-8"))
    return reasons


def vectors() -> list["Vector"]:
    """All of them."""
    return [Vector.read(one) for one in json.loads((FOLDER / "vectors.json").read_text("utf-8"))["vectors"]]


@dataclass(frozen=True)
class Vector:
    """One case."""

    id: str
    title: str
    lists: dict[str, str]
    classes: dict[str, str]
    params: dict[str, str]
    tables: dict[str, dict[str, str]]
    request: dict[str, Any] = field(hash=False)
    result: str

    @classmethod
    def read(cls, case: dict[str, Any]) -> Self:
        """One element of vectors.json."""
        config = dict(case["config"])
        classes, params = config.pop("classes", {}), config.pop("params", {})
        request = {"sender": "a@b.example", "rcpt": "u@local.example", **case["request"]}
        vector = cls(
            case["id"], case["title"], config, classes, params, case["tables"], request, case["result"]
        )
        if vector.login_map:
            request["sender"] = vector.own(request["sender"])
        return vector

    @property
    def login_map(self) -> str:
        """The table that smtpd_sender_login_maps names."""
        return self.params.get("smtpd_sender_login_maps", "").strip("%")

    @property
    def logins(self) -> set[str]:
        """Everybody whom the login map names."""
        table = self.tables.get(self.login_map, {})
        return {login for key, names in table.items() if "@" in key for login in re.split(r"[,\s]+", names)}

    def own(self, address: str) -> str:
        """The address in a domain of this vector's own; the null sender as it is."""
        local, at, domain = address.rpartition("@")
        return f"{local}@{self.id.lower()}.{domain}" if at else address

    # --- for Postfix --------------------------------------------------------------------------------

    def smtpd(self, server: str, each_list: bool) -> dict[str, str]:
        """The parameters of its smtpd: the service is called once, or from each list."""
        own = {name: value for name, value in self.params.items() if name != "smtpd_sender_login_maps"}
        own["smtpd_relay_restrictions"] = NEUTRAL
        call = f"check_policy_service {{{{ {server}, timeout=180s, try_limit=1, policy_context={{}} }}}}"
        if not each_list:
            return {**own, "smtpd_recipient_restrictions": call.format(self.id)}
        for name in self.lists:
            context, parameter, _ = LISTS[name]
            filler = f", {NEUTRAL}" if name == "relay" else ""
            own[parameter] = call.format(f"{self.id}/{context}") + filler
        return own

    # --- for the directory --------------------------------------------------------------------------

    def renamed(self, text: str) -> str:
        """A restriction list with the names that this vector's tables and classes have in the tree."""
        for table in self.tables:
            text = text.replace(f"%{table}%", f"ldap:{self.id}-{table}")
        # A name in another case than the class's is renamed as well: it has to stay in another case.
        names = {name.lower() for name in self.classes}
        return re.sub(r"[^\s,{}]+", lambda m: f"{self.id}_{m[0]}" if m[0].lower() in names else m[0], text)

    def right_hand_side(self, value: str) -> str:
        """An action as it is; in a list of restrictions the names change."""
        return value if not value.strip() or ACTION.match(value) else self.renamed(value)

    def records(self) -> Iterator[str]:
        """Its entries, as LDIF."""
        yield format_record(f"cn={self.id},{POLICY_BASE}", self._policy())
        for name, text in self.classes.items():
            cn = f"{self.id}_{name}"
            restrictions = ("smtpdRestrictions", [self.renamed(text)])
            yield _entry(f"cn={cn},{POLICY_BASE}", "smtpdRestrictionClass", [("cn", [cn]), restrictions])
        for name, table in self.tables.items():
            if name != self.login_map:
                lines = [f"{key} {self.right_hand_side(value)}" for key, value in table.items()]
                yield _table(f"{self.id}-{name}", lines)
        yield from self._owners()

    def _policy(self) -> Attributes:
        found: Attributes = [("objectClass", ["smtpdPolicy"]), ("cn", [self.id])]
        # An empty list is an absent one: the syntax of the attribute has no empty values.
        found += [(LISTS[name][2], [self.renamed(text)]) for name, text in self.lists.items() if text]
        return found + [(name, [value]) for name, value in self._site()]

    def _site(self) -> Iterator[tuple[str, str]]:
        """What the policy has to know of main.cf, where it matters."""
        text, recipient = self._everything(), self.request["rcpt"]
        if "permit_mynetworks" in text.lower():
            yield "smtpdMynetworks", self.params.get("mynetworks", MAIN["mynetworks"])
        if DESTINATION_TEST.search(text) or re.search("[%!]", recipient):
            yield "smtpdLocalDomains", f"ldap:{LOCAL_TABLE}"
        if "@" not in recipient:
            yield "smtpdMyorigin", MAIN["mydomain"]
        if "parent_domain_matches_subdomains" in self.params:
            listed = "smtpd_access_maps" in self.params["parent_domain_matches_subdomains"]
            yield "smtpdParentDomainMatchesSubdomains", "TRUE" if listed else "FALSE"
        yield "smtpdRecipientDelimiter", "+"

    def _everything(self) -> str:
        """All the restrictions that it has anywhere."""
        values = (value for table in self.tables.values() for value in table.values())
        return " ".join([*self.lists.values(), *self.classes.values(), *values])

    def _owners(self) -> Iterator[str]:
        """The login map: an entry for each address, and for each domain, that says who owns it."""
        for key, names in self.tables.get(self.login_map, {}).items():
            if "@" not in key:
                continue  # Postfix never looks up a bare domain there
            address = self.own(key)
            owners = ("smtpdSendAs", [f"uid={login},{PEOPLE}" for login in re.split(r"[,\s]+", names)])
            if address.startswith("@"):
                domain = address[1:]
                kinds = ["domain", "domainRelatedObject", "smtpdAccessControl"]
                mapped = [("dc", [domain]), ("associatedDomain", [domain])]
                yield format_record(f"dc={domain},{BASE}", [("objectClass", kinds), *mapped, owners])
            else:
                kinds = ["inetOrgPerson", "smtpdAccessControl"]
                mapped = [(name, [address]) for name in ("cn", "sn", "mail")]
                yield format_record(f"cn={address},{PEOPLE}", [("objectClass", kinds), *mapped, owners])


def tree(cases: list[Vector]) -> str:
    """The whole directory, as LDIF."""
    records = [_entry(BASE, "domain", [("dc", ["test"])])]
    records += [
        _entry(f"ou={ou},{BASE}", "organizationalUnit", [("ou", [ou])]) for ou in ("people", "policy")
    ]
    permit = [("cn", ["default"]), ("smtpdRecipientRestrictions", ["permit"])]
    records.append(_entry(f"cn=default,{POLICY_BASE}", "smtpdPolicy", permit))
    records.append(_table(LOCAL_TABLE, [f"{domain} OK" for domain in LOCAL_DOMAINS]))
    for login in sorted(set().union(*(case.logins for case in cases))):
        names = [(name, [login]) for name in ("uid", "cn", "sn")]
        records.append(_entry(f"uid={login},{PEOPLE}", "inetOrgPerson", names))
    return "\n".join([*records, *(record for case in cases for record in case.records())])


def _entry(dn: str, kind: str, attributes: Attributes) -> str:
    return format_record(dn, [("objectClass", [kind]), *attributes])


def _table(cn: str, lines: list[str]) -> str:
    attributes: Attributes = [("cn", [cn]), ("smtpdAccess", lines)]
    return _entry(f"cn={cn},{POLICY_BASE}", "smtpdAccessTable", attributes)
