"""Hypothesis strategies for pairs: sessions first, then policies whose keys can meet them.

What a pair is made of is drawn evenly from lists, so that each occurs often, and is noted (`seen`) for the
report: `restriction NAME`, `table TYPE`, `action VERB`, `key FORM`, `list NAME`, `with WHAT`.
"""

from hypothesis import strategies as st

from ldappolicy.vocabulary import CHECKS
from tests.conformance.pairs import (
    ADDRESSES,
    DOMAINS,
    LISTS,
    LOGINS,
    MEMBERS,
    Pair,
    Session,
    Table,
    Transaction,
)

SENDERS = (
    "",
    "amy@local.example",
    "AMY@Local.Example",
    "amy+x@local.example",
    "amy.alias@relay.example",
    "bob@local.example",
    "cal@sub.relay.example",
    "a@outside.example",
    "a@deep.sub.outside.example",
    "u+x@sub.outside.example",
    "amy@local.example.",
    "u@[192.0.2.1]",
    "nodomain",
    "x@nodot",
    '"john doe"@outside.example',
    "x%outside.example@local.example",
    "ü@outside.example",
    "x@nowhere.example",
    "x@some.servfail",
)
RECIPIENTS = (
    "all@local.example",
    "ALL@LOCAL.example",
    "all+x@local.example",
    "all@local.example.",
    "news@relay.example",
    "amy@local.example",
    "bob@local.example",
    "cal@sub.relay.example",
    "u+x@sub.relay.example",
    "u@outside.example",
    "u@backup.example",
    "nodomain",
    "all",
    "x@nodot",
    "u@[127.0.0.1]",
    "u@[192.0.2.1]",
    "all%local.example@local.example",
    "x%outside.example@local.example",
    "local.example!all@local.example",
    '"all@local.example"@local.example',
    '"john doe"@local.example',
    "ü@local.example",
    "u@valias.example",
    "u@some.servfail",
)
CLIENTS = (
    {"name": "mail.outside.example", "addr": "203.0.113.9"},
    {"name": "MAIL.Sub.Outside.example", "addr": "203.0.113.10"},
    {"name": "[UNAVAILABLE]", "addr": "203.0.113.11"},
    {"name": "[TEMPUNAVAIL]", "addr": "203.0.113.12"},
    {"name": "[UNAVAILABLE]", "reverse_name": "ptr.outside.example", "addr": "192.0.2.66"},
    {"name": "inside.local.example", "addr": "10.1.2.3"},
    {"name": "mail.outside.example", "addr": "2001:db8:1::5"},
    {"name": "six.sub.outside.example", "addr": "2001:db8:2:3::4"},
)
HELOS = (
    "helo.outside.example",
    "Sub.HELO.outside.example",
    "nodot",
    "bad_name!.example",
    "trail.example.",
    "[192.0.2.1]",
    "192.0.2.1",
    None,
)
USERS = ("", "", "amy", "AMY", "bob", "cal", "bob@local.example", "eve", "zoe@outside.example")

# Restrictions without a table that are decided here, and those that are left to Postfix.
HERE = (
    *("permit", "reject", "defer", "defer_if_permit", "defer_if_reject", "permit_sasl_authenticated"),
    *(
        "permit_mynetworks",
        "permit_auth_destination",
        "reject_unauth_destination",
        "defer_unauth_destination",
    ),
    *("reject_non_fqdn_sender", "reject_non_fqdn_recipient", "reject_non_fqdn_helo_hostname"),
    *("reject_invalid_helo_hostname", "reject_plaintext_session", "reject_multi_recipient_bounce"),
    *("reject_sender_login_mismatch", "reject_authenticated_sender_login_mismatch"),
    *("reject_unauthenticated_sender_login_mismatch", "reject_known_sender_login_mismatch"),
    *("reject_invalid_hostname", "reject_non_fqdn_hostname", "Permit", "REJECT_non_fqdn_Sender"),
)
LEFT = (
    *("permit_inet_interfaces", "permit_mx_backup", "permit_tls_clientcerts", "permit_tls_all_clientcerts"),
    *(
        "permit_dnswl_client dnswl.example",
        "permit_dnswl_client servfail",
        "permit_rhswl_client rhswl.example",
    ),
    *("permit_rhswl_client servfail", "reject_rbl_client rbl.example", "reject_rbl_client servfail"),
    *("reject_rbl_client rbl.example=127.0.0.3", "reject_rhsbl_client rhsbl.example"),
    *("reject_rhsbl_reverse_client rhsbl.example", "reject_rhsbl_helo rhsbl.example"),
    *("reject_rhsbl_sender rhsbl.example", "reject_rhsbl_recipient rhsbl.example"),
    *("reject_unauth_pipelining", "reject_unknown_client_hostname", "reject_unknown_reverse_client_hostname"),
    *("reject_unknown_helo_hostname", "reject_unknown_sender_domain", "reject_unknown_recipient_domain"),
    *("reject_unlisted_sender", "reject_unlisted_recipient", "sleep 0"),
)
PLAIN = (
    *("DUNNO", "DUNNO text", "OK", "OK text", "RELAY", "1234", "INFO told", "WARN told", "dunno"),
    *("REJECT", "REJECT no way", "REJECT 5.7.0 no way", "reject", "DEFER", "DEFER 4.7.0 later", "defer"),
    *("450 4.7.1 later", "450 later", "550 5.7.0 no: really", "554 no", "421 4.7.0 bye", "521 5.7.0 bye"),
    *("DEFER_IF_PERMIT", "DEFER_IF_PERMIT 4.7.0 wait", "DEFER_IF_REJECT", "DEFER_IF_REJECT 4.7.0 wait"),
    *("550 5.1.1 nobody", "REJECT 5.1.8 nobody"),
)
HOLD = ("HOLD", "HOLD waits")
WHOLE_MESSAGE = (
    "DISCARD",
    "DISCARD gone",
    "FILTER discard:there",
    "REDIRECT r@local.example",
    "BCC b@local.example",
    "PREPEND X-Test: value",
)
LISTED = (
    *("reject,", "defer,", "permit,", "permit_mynetworks, reject", "permit_sasl_authenticated, defer"),
    *("reject_unauth_destination, permit", "warn_if_reject reject", "defer_if_permit,"),
)
WRONG = ("nosuchclass", "REJECT,text", "type:table")


KEYS = (
    *("user@domain", "user+ext@domain", "user@", "user+ext@", "domain", "parent domain", ".parent domain"),
    *("upper case", "quoted address", "null sender", "login", "fingerprint"),
    *("name", "parent name", ".parent name", "client", "client parent", ".client parent", "client address"),
    *("client network of IPv4", "client network of IPv6"),
)
TABLES = (
    *("hash", "static", "inline", "cidr", "fail", "member", "url", "directory"),
    *(
        "recipient:members",
        "recipient:owners",
        "recipient:moderators",
        "recipient:allowed",
        "recipient:denied",
    ),
)
ACTIONS = (
    *("DUNNO", "OK", "RELAY", "NUMBER", "INFO", "WARN", "REJECT", "DEFER", "4NN", "5NN", "DEFER_IF_PERMIT"),
    *(
        "DEFER_IF_REJECT",
        "HOLD",
        "DISCARD",
        "FILTER",
        "REDIRECT",
        "BCC",
        "PREPEND",
        "list",
        "class",
        "no action",
    ),
)
CIRCUMSTANCES = (
    *(
        "a sequence of transactions",
        "several recipients",
        "the null sender",
        "an extension",
        "an IPv6 client",
    ),
    *("a UTF-8 address", "upper case", "a trailing dot", "a routed local part", "an address literal"),
    *("a message", "a login", "VRFY", "ETRN", "no HELO", "smtpd_delay_reject = no"),
    *("parent_domain_matches_subdomains", "no parent_domain_matches_subdomains"),
    *("a table that stands alone", "a policy that knows no networks", "a policy that knows no domains"),
)
RESTRICTIONS = {name.partition(" ")[0].lower() for name in (*HERE, *LEFT)} | {
    "warn_if_reject",
    "class",
    *CHECKS,
}
EXPECTED = (
    *(f"list {name}" for name in LISTS),
    *(f"restriction {name}" for name in (*sorted(RESTRICTIONS), "unknown")),
    *(f"table {name}" for name in TABLES),
    *(f"key {name}" for name in KEYS),
    *(f"action {name}" for name in ACTIONS),
    *(f"with {name}" for name in CIRCUMSTANCES),
)
"""What `seen` says of enough pairs."""


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """One connection."""
    transaction = st.builds(
        Transaction,
        st.sampled_from(SENDERS),
        st.lists(st.sampled_from(RECIPIENTS), min_size=1, max_size=3).map(tuple),
        st.sampled_from((False, False, True)),
    )
    return Session(
        draw(st.sampled_from(CLIENTS)),
        draw(st.sampled_from(HELOS)),
        draw(st.sampled_from(USERS)),
        draw(st.lists(transaction, min_size=1, max_size=3).map(tuple)),
        draw(st.sampled_from(("", "", "", "all@local.example"))),
        draw(st.sampled_from(("", "", "", "relay.example", "Some.Sub.relay.example"))),
    )


class Maker:
    """Draws the parts of one policy around a session."""

    def __init__(self, draw: st.DrawFn, session: Session) -> None:
        self.draw = draw
        self.session = session
        self.parents = draw(st.booleans())
        self.delimiter = draw(st.sampled_from(("+", "+", "")))
        # Most policies are of one kind: what is left to Postfix takes away from what can be compared.
        self.left = draw(st.sampled_from((False, True)))
        self.acting = not self.left and draw(st.booleans())
        self.seen: list[str] = []
        self._makers = {
            "hash": self._hash,
            "static": self._static,
            "inline": self._inline,
            "cidr": self._cidr,
            "fail": self._fail,
            "member": self._member,
            "url": self._url,
            "directory": self._directory,
        }
        self.classes: dict[str, str] = {}
        self.tables: dict[str, Table] = {}
        self.site: dict[str, dict[str, str]] = {}

    def one(self, *choices: str) -> str:
        """One of them."""
        return self.draw(st.sampled_from(choices))

    def often(self, chance: int) -> bool:
        """True once in so many times."""
        return self.draw(st.integers(0, chance - 1)) == 0

    # --- actions ------------------------------------------------------------------------------

    def action(self, *, ours: bool = True) -> str:
        """A right-hand side; `ours`: from an entry that may act on the whole message."""
        kinds = ["plain"] * 7 + ["listed"] * 2 + (["class"] * 2 if self.classes else [])
        kinds += (["hold", *(["message"] * 3 * ours)] * 4) if self.acting else []
        kind = self.one(*kinds)
        if self.often(40):
            value = self.one(*WRONG)
        elif kind == "class":
            value = self.one(*self.classes)
        else:
            value = self.one(
                *{"plain": PLAIN, "listed": LISTED, "hold": HOLD, "message": WHOLE_MESSAGE}[kind]
            )
        verb = value.partition(" ")[0]
        shown = "4NN" if verb[0] == "4" else "5NN" if verb[0] == "5" else "number" if verb.isdigit() else verb
        shown = "class" if kind == "class" else "list" if kind == "listed" else shown.upper()
        shown = "no action" if value in WRONG else shown
        self.seen.append(f"action {shown}")
        return value

    # --- tables -------------------------------------------------------------------------------

    def key(self, kind: str) -> str:
        """A key that a check of that kind may look up; its form is noted."""
        if kind in ("sender", "recipient"):
            form, key = self._address_key(kind)
        elif kind in ("client", "reverse_client"):
            form, key = self._client_key(kind)
        elif kind == "sasl":
            form, key = "login", self.one("amy", "bob", "cal", "eve", "bob@local.example", "Amy")
        elif kind == "ccert":
            form, key = "fingerprint", "AA:BB"
        else:
            name = self.one(
                "helo.outside.example",
                "nodot",
                "trail.example.",
                "[192.0.2.1]",
                "192.0.2.1",
                "relay.example",
                "some.sub.relay.example",
            )
            form, key = self._domain_key(name, "name")
        self.seen.append(f"key {form}")
        return key

    def _address_key(self, kind: str) -> tuple[str, str]:
        if kind == "sender":
            said = [one.sender for one in self.session.transactions] + list(SENDERS[:8])
        else:
            said = [to for one in self.session.transactions for to in one.recipients] + list(RECIPIENTS[:8])
        address = self.one(*said)
        if not address:
            return "null sender", "<>"
        local, at, domain = address.rstrip(".").rpartition("@")
        if not at:
            local, domain = domain, "test.example"
        if '"' in local or any(char in local for char in "%!"):
            # Routed addresses are looked up as what Postfix makes of them.
            forms = {"quoted address": '"john doe"@outside.example', "domain": "local.example"}
            form = self.one(*forms)
            return form, forms[form]
        plain, plus, _ = local.partition("+")
        forms = {
            "user@domain": f"{plain}@{domain}",
            "user+ext@domain": f"{local if plus else plain + '+x'}@{domain}",
            "user@": f"{plain}@",
            "user+ext@": f"{local if plus else plain + '+x'}@",
        }
        form = self.one(*forms, "domain", "parent domain", ".parent domain", "upper case")
        if form == "upper case":
            return form, f"{plain}@{domain}".upper()
        return (form, forms[form]) if form in forms else self._domain_key(domain, "domain", form)

    def _domain_key(self, name: str, what: str, form: str = "") -> tuple[str, str]:
        form = form or self.one(what, f"parent {what}", f".parent {what}")
        parent = name.partition(".")[2].rstrip(".") or name
        if form.startswith("parent"):
            return form, parent
        return (form, f".{parent}") if form.startswith(".") else (form, name)

    def _client_key(self, kind: str) -> tuple[str, str]:
        client = self.session.client
        name = client.get("reverse_name", client["name"]) if kind == "reverse_client" else client["name"]
        name = "unknown" if name.startswith("[") else name
        address = client["addr"]
        form = self.one("client name", "client parent", ".client parent", "address", "network")
        if form == "address":
            return f"client {form}", address
        if form == "network":
            if ":" in address:
                return "client network of IPv6", self.one("2001:db8:1", "2001:db8:2", "2001:db8", "2001")
            return "client network of IPv4", address.rsplit(".", self.draw(st.integers(1, 3)))[0]
        return self._domain_key(name, "client", form.replace("client name", "client"))

    def table(self, check: str) -> str:
        """The argument of a check."""
        kind = CHECKS[check]
        types = ["hash"] * 6 + ["static", "inline", "cidr", "cidr"]
        types += ["fail"] if self.often(6) else []
        types += ["member", "url"] if kind in ("sender", "recipient", "sasl") else []
        types += ["directory"] * 3 if kind in ("sender", "recipient", "sasl") else []
        types += ["recipient"] * 5 if kind in ("sender", "sasl") else []
        type_ = self.one(*types)
        if type_ == "cidr" and kind != "client":
            type_ = "hash"
        if type_ == "recipient":
            name = self.one("members", "owners", "moderators", "allowed", "denied")
            self.seen.append(f"table recipient:{name}")
            return f"recipient:{name}"
        self.seen.append(f"table {type_}")
        return self._makers[type_](kind)

    def _directory(self, kind: str) -> str:
        what = "Recipient" if kind == "recipient" else "Sender"
        for _ in range(self.draw(st.integers(1, 3))):
            who = self.one(*ADDRESSES, *DOMAINS, *(name for name in MEMBERS if name not in ADDRESSES))
            member = who in MEMBERS and (who not in ADDRESSES or self.often(2))
            entry = self.site.setdefault(who, {})
            entry[f"smtpd{'Member' if member else ''}{what}Access"] = self.action(ours=False)
            if member and self.often(2):
                entry["smtpdPriority"] = self.one("1", "2", "30")
        return "directory:access"

    def _static(self, kind: str) -> str:
        return f"static:{{{self.action()}}}"

    def _inline(self, kind: str) -> str:
        lines = {key: self.action() for key in (self.key(kind), self.key(kind)) if not set(key) & set('"{}')}
        said = ", ".join(f"{{{key} = {action}}}" for key, action in (lines or {"x": "OK"}).items())
        return f"inline:{{{said}}}"

    def _fail(self, kind: str) -> str:
        return "fail:broken"

    def _hash(self, kind: str) -> str:
        lines = {self.key(kind).casefold(): self.action() for _ in range(self.draw(st.integers(1, 3)))}
        return self._named(Table("hash", tuple(lines.items())))

    def _cidr(self, kind: str) -> str:
        address = self.session.client["addr"]
        near = (f"{address}/{self.one('48', '64', '128')}" if ":" in address else f"{address}/32", address)
        networks = (*near, "203.0.113.0/24", "0.0.0.0/0", "2001:db8::/32", "!10.0.0.0/8")
        count = self.draw(st.integers(1, 3))
        return self._named(
            Table("cidr", tuple((self.one(*networks[1:]), self.action()) for _ in range(count)))
        )

    def _member(self, kind: str) -> str:
        who = self.draw(st.lists(st.sampled_from([*LOGINS, *MEMBERS]), min_size=1, max_size=2, unique=True))
        return self._named(Table("member", (), tuple(who), self.action()))

    def _url(self, kind: str) -> str:
        who = self.draw(st.lists(st.sampled_from([*ADDRESSES]), min_size=1, max_size=2, unique=True))
        return self._named(Table("url", (), tuple(who), self.action()))

    def _named(self, table: Table) -> str:
        name = f"t{len(self.tables) + 1}"
        self.tables[name] = table
        return f"%{name}%"

    # --- lists --------------------------------------------------------------------------------

    def item(self, where: str) -> str:
        """One restriction, with its argument."""
        kinds = ["here"] * 4 + ["check"] * 5 + ["warn"] + (["left"] * 8 if self.left else [])
        kind = self.one(*kinds, *(["class"] if self.classes else []))
        if kind == "warn":
            self.seen.append("restriction warn_if_reject")
            return f"warn_if_reject {self.item(where)}"
        if kind == "class":
            name = self.one(*self.classes)
            self.seen.append("restriction class")
            # In another case it is no class: a server configuration error when it is reached.
            return name.upper() if self.often(30) else name
        if kind == "check":
            return self._check(where)
        if self.often(80):
            self.seen.append("restriction unknown")
            return "no_such_restriction"
        text = self.one(*(HERE if kind == "here" else LEFT))
        self.seen.append(f"restriction {text.partition(' ')[0].lower()}")
        return text

    def _check(self, where: str) -> str:
        check = self.one(*CHECKS)
        self.seen.append(f"restriction {check}")
        if where in ("helo", "sender", "recipient") and check == f"check_{where}_access" and self.often(3):
            argument = self._hash(CHECKS[check])
            self.seen += ["table hash", "with a table that stands alone"]
            return argument
        return f"{check} {self.table(check)}"

    def text(self, where: str, least: int, most: int) -> str:
        """A list; one separator is as good as another."""
        items = [self.item(where) for _ in range(self.draw(st.integers(least, most)))]
        return self.one(", ", " ", ",").join(items)

    def pair(self) -> Pair:
        """The whole."""
        for number in range(self.draw(st.integers(0, 3))):
            # A class may name those before it.
            body = self.text("class", 1, 3)
            self.classes[f"c{number + 1}"] = body
        chosen = self.draw(st.lists(st.sampled_from(LISTS), min_size=1, max_size=3, unique=True))
        lists = {
            name: self.text(name, 1, 4)
            for name in LISTS
            if name in {*chosen, self.one("recipient", "sender")}
        }
        self.seen += [f"list {name}" for name in lists]
        delay, networks, domains = (not self.often(8), not self.often(6), not self.often(6))
        self.seen += self._notes(delay)
        self.seen += [] if networks else ["with a policy that knows no networks"]
        self.seen += [] if domains else ["with a policy that knows no domains"]
        return Pair(
            lists,
            self.classes,
            self.tables,
            self.site,
            self.session,
            self.parents,
            self.delimiter,
            delay,
            networks,
            domains,
            tuple(self.seen),
        )

    def _notes(self, delay: bool) -> list[str]:
        session = self.session
        said = [one.sender for one in session.transactions]
        said += [to for one in session.transactions for to in one.recipients]
        facts = {
            "a sequence of transactions": len(session.transactions) > 1,
            "several recipients": any(len(one.recipients) > 1 for one in session.transactions),
            "the null sender": "" in said,
            "an extension": any("+" in address for address in said),
            "an IPv6 client": ":" in session.client["addr"],
            "a UTF-8 address": not all(address.isascii() for address in said),
            "upper case": any(address != address.lower() for address in said),
            "a trailing dot": any(address.endswith(".") for address in said),
            "a routed local part": any(set(address.rpartition("@")[0]) & set("%!@") for address in said),
            "an address literal": any("[" in address for address in said),
            "a message": any(one.data for one in session.transactions),
            "a login": bool(session.login),
            "VRFY": bool(session.vrfy),
            "ETRN": bool(session.etrn),
            "no HELO": session.helo is None,
            "smtpd_delay_reject = no": not delay,
            "parent_domain_matches_subdomains": self.parents,
            "no parent_domain_matches_subdomains": not self.parents,
        }
        return [f"with {name}" for name, is_so in facts.items() if is_so]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """A pair."""
    return Maker(draw, draw(sessions())).pair()
