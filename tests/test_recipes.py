"""The recipes of the example company, through real Postfix and the real service, over both directories.

Each row is one SMTP transaction: who connects, MAIL FROM, RCPT TO, and Postfix's reply to RCPT, letter
for letter. Every row runs over the embedded directory, over slapd that knows groups by `member` only, and
over slapd that keeps memberOf; the replies are the same ones, so they are written down once.

Postfix calls the service in the ways of `tests.labs.postfix.smtpds`.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.labs.ldappolicy import Ldappolicy, Sections
from tests.labs.postfix import OUTSIDE, WORLD, Postfix, Session, require_postfix, smtpds
from tests.labs.slapd import PLAIN, STORED, Slapd, require_slapd

pytestmark = pytest.mark.servers

OK = "250 2.1.5 Ok"
REJECTED = "554 5.7.1 <{recipient}>: Recipient address rejected: Access denied"
SENDER_REJECTED = "554 5.7.1 <{sender}>: Sender address rejected: Access denied"
NO_RELAY = "554 5.7.1 <{recipient}>: Relay access denied"

NAMELESS = {"name": "[UNAVAILABLE]", "addr": "198.51.100.8"}
NETWORK = {"name": "desk.my.domain", "addr": "192.0.2.8"}

STRANGER = "stranger@elsewhere.example"
FRIEND = "friend@elsewhere.example"

Client = dict[str, str]


def login(name: str) -> Client:
    """A client from anywhere that has logged in."""
    return {**OUTSIDE, "login": name}


@dataclass(frozen=True)
class Site:
    """One Postfix, and the service behind it."""

    postfix: Postfix
    service: Ldappolicy

    def session(self, smtpd: str, client: Client) -> Session:
        """A session past EHLO."""
        session = self.postfix.session(smtpd, **client)
        session.ehlo()
        return session

    def rcpt(self, smtpd: str, client: Client, sender: str, recipient: str) -> str:
        """Postfix's reply to RCPT."""
        with self.session(smtpd, client) as session:
            assert session.mail(sender).startswith("250"), sender
            return session.rcpt(recipient)


class Row(NamedTuple):
    """One transaction, and the reply to RCPT."""

    id: str
    client: Client
    sender: str
    recipient: str
    reply: str

    def check(self, site: Site, smtpd: str, reply: str = "") -> None:
        """It is answered so, or as `reply` says."""
        expected = (reply or self.reply).format(sender=self.sender, recipient=self.recipient)
        assert expected == site.rcpt(smtpd, self.client, self.sender, self.recipient)


def cases(rows: list[tuple[str, Client, str, str, str]]) -> pytest.MarkDecorator:
    """A table of rows as parameter of a test."""
    return pytest.mark.parametrize("row", [Row(*row) for row in rows], ids=[row[0] for row in rows])


@pytest.fixture(
    scope="module", params=["ldif", "slapd", pytest.param("slapd-memberof", marks=pytest.mark.long)]
)
def site(request: pytest.FixtureRequest, example_ldif: Path) -> Iterator[Site]:
    """The site, over one directory after the other."""
    require_postfix()
    with ExitStack() as stack:
        service = stack.enter_context(Ldappolicy(directory(request.param, example_ldif, stack)))
        refuses = {"unknown_address_reject_code": "550"}
        postfix = Postfix(smtpds(service), refuses, WORLD, {"broken.example"})
        yield Site(stack.enter_context(postfix), service)


def directory(name: str, ldif: Path, stack: ExitStack) -> Sections:
    """What the configuration says of it, once it is there."""
    if name == "ldif":
        return {"directory": {"uri": [f"ldif:{ldif}"]}}
    require_slapd()
    overlays = STORED if name == "slapd-memberof" else PLAIN
    slapd = stack.enter_context(Slapd(schema="ldappolicy", overlays=overlays))
    slapd.load(ldif)
    return {"directory": {"uri": [slapd.uri], "profile": "openldap"}}


# --- recipe 1: junk mail classes ------------------------------------------------------------------

UNKNOWN_SENDER = "550 5.1.8 <{sender}>: Sender address rejected: Domain not found"
UNKNOWN_NOW = "450 4.1.8 <{sender}>: Sender address rejected: Domain not found"
UNKNOWN_CLIENT = "450 4.7.25 Client host rejected: cannot find your hostname, [198.51.100.8]"

JUNK = [
    # id, client, sender, recipient, reply
    ("jane: a sender that the DNS knows", OUTSIDE, STRANGER, "jane@my.domain", OK),
    ("jane: a sender that it does not know", OUTSIDE, "a@unknown.example", "jane@my.domain", UNKNOWN_SENDER),
    ("jane: a sender that it cannot tell now", OUTSIDE, "a@broken.example", "jane@my.domain", UNKNOWN_NOW),
    ("jane: a client without a name", NAMELESS, STRANGER, "jane@my.domain", UNKNOWN_CLIENT),
    ("jane: the sender comes first", NAMELESS, "a@unknown.example", "jane@my.domain", UNKNOWN_SENDER),
    ("jane: the null sender", OUTSIDE, "", "jane@my.domain", OK),
    ("jane: a sender of ours", OUTSIDE, "joe@my.domain", "jane@my.domain", OK),
    ("jane: her alias", OUTSIDE, "a@unknown.example", "jane.roe@my.domain", UNKNOWN_SENDER),
    ("jane: an extension", OUTSIDE, "a@unknown.example", "jane+news@my.domain", UNKNOWN_SENDER),
    ("jane: upper case", OUTSIDE, "a@unknown.example", "JANE@My.Domain", UNKNOWN_SENDER),
    ("joe: a sender that the DNS does not know", OUTSIDE, "a@unknown.example", "joe@my.domain", OK),
    ("joe: a sender that it cannot tell now", OUTSIDE, "a@broken.example", "joe@my.domain", OK),
    ("joe: a client without a name", NAMELESS, STRANGER, "joe@my.domain", OK),
    ("joe: the null sender", NAMELESS, "", "joe@my.domain", OK),
    ("mia did not choose", NAMELESS, "a@unknown.example", "mia@my.domain", OK),
    ("joe: no relay opens", OUTSIDE, STRANGER, FRIEND, NO_RELAY),
]


@cases(JUNK)
@pytest.mark.parametrize("smtpd", ["mx", "plain"])
def test_1_junk(site: Site, smtpd: str, row: Row) -> None:
    """Users choose how junk is kept from them; what only Postfix can find out goes back to it."""
    row.check(site, smtpd)


# --- recipe 2: a list for our networks ------------------------------------------------------------

INTERNAL = [
    ("our network", NETWORK, STRANGER, "internal@my.domain", OK),
    ("our network, null sender", NETWORK, "", "internal@my.domain", OK),
    ("loopback", {"name": "localhost", "addr": "127.0.0.1"}, STRANGER, "internal@my.domain", OK),
    ("IPv6 loopback", {"name": "localhost", "addr": "::1"}, STRANGER, "internal@my.domain", OK),
    ("outside", OUTSIDE, STRANGER, "internal@my.domain", REJECTED),
    ("outside, with a sender of ours", OUTSIDE, "joe@my.domain", "internal@my.domain", REJECTED),
    ("outside, logged in", login("joe"), "joe@my.domain", "internal@my.domain", REJECTED),
    ("IPv6 outside", {"name": "six.example", "addr": "2001:db8::9"}, "", "internal@my.domain", REJECTED),
    ("next to our network", {"name": "n.example", "addr": "192.0.3.8"}, "", "internal@my.domain", REJECTED),
    ("an extension", OUTSIDE, STRANGER, "internal+x@my.domain", REJECTED),
]


@cases(INTERNAL)
@pytest.mark.parametrize("smtpd", ["mx", "plain", "lists"])
def test_2_internal(site: Site, smtpd: str, row: Row) -> None:
    """Only our networks reach it, whether the policy knows them or leaves them to Postfix."""
    row.check(site, smtpd)


def test_2_who_decides(site: Site) -> None:
    """The policy that knows mynetworks decides; the other one hands the restrictions back."""
    request = {"client_address": "198.51.100.7", "sender": STRANGER, "recipient": "internal@my.domain"}
    assert "reject," == site.service.ask(**request)
    assert "permit_mynetworks, reject" == site.service.ask(**request, policy_context="plain")


# --- recipe 3: a list for insider domains, under every spelling -------------------------------------

# How RCPT TO spells the list, and how Postfix spells it in a refusal.
SPELLINGS = [
    ("all@my.domain", "all@my.domain"),
    ("ALL@MY.DOMAIN", "ALL@MY.DOMAIN"),
    ("all+x@my.domain", "all+x@my.domain"),
    ('"all"@my.domain', "all@my.domain"),
    ("all@my.domain.", "all@my.domain."),
    ("all%my.domain@my.domain", "all%my.domain@my.domain"),
    ("my.domain!all@my.domain", "my.domain!all@my.domain"),
    ('"all@my.domain"@my.domain', "all@my.domain@my.domain"),
    ("all", "all"),
    ("all%my.domain", "all%my.domain"),
    ("my.domain!all", "my.domain!all"),
    ("All+x%My.Domain@my.domain.", "All+x%My.Domain@my.domain."),
]
spelled = pytest.mark.parametrize(("recipient", "shown"), SPELLINGS, ids=[row[0] for row in SPELLINGS])


@spelled
@pytest.mark.parametrize("client", [NETWORK, OUTSIDE], ids=["network", "outside"])
def test_3_outsider(site: Site, client: Client, recipient: str, shown: str) -> None:
    """An outsider's mail is refused under every spelling that Postfix delivers to the list."""
    expected = f"554 5.7.1 <{shown}>: Recipient address rejected: Access denied"
    assert expected == site.rcpt("mx", client, STRANGER, recipient)


@spelled
def test_3_insider(site: Site, recipient: str, shown: str) -> None:
    """An insider's mail is taken, under every spelling."""
    assert OK == site.rcpt("mx", NETWORK, "joe@my.domain", recipient)


INSIDERS = [
    ("an insider", OUTSIDE, "joe@my.domain", "all@my.domain", OK),
    ("an insider without an entry", OUTSIDE, "nobody@my.domain", "all@my.domain", OK),
    ("an insider in upper case", OUTSIDE, "JOE@MY.DOMAIN", "all@my.domain", OK),
    ("a subdomain", OUTSIDE, "a@sub.my.domain", "all@my.domain", OK),
    ("a subdomain of that", OUTSIDE, "a@very.sub.my.domain", "all@my.domain", OK),
    ("a partner", OUTSIDE, "pat@partner.example", "all@my.domain", OK),
    ("a name that ends alike", OUTSIDE, "a@notmy.domain", "all@my.domain", REJECTED),
    ("a name that begins alike", OUTSIDE, "a@my.domain.evil.example", "all@my.domain", REJECTED),
    ("the parent", OUTSIDE, "a@domain", "all@my.domain", REJECTED),
    ("a domain in the local part", OUTSIDE, "my.domain@elsewhere.example", "all@my.domain", REJECTED),
    ("a quoted insider elsewhere", OUTSIDE, '"joe@my.domain"@evil.example', "all@my.domain", REJECTED),
    ("the null sender", OUTSIDE, "", "all@my.domain", REJECTED),
    ("a login is no proof here", login("joe"), STRANGER, "all@my.domain", REJECTED),
    ("nor is our network", NETWORK, STRANGER, "all@my.domain", REJECTED),
    ("another local part", OUTSIDE, STRANGER, "allx@my.domain", OK),
    ("another domain of ours", OUTSIDE, STRANGER, "all@other.example", OK),
]


@cases(INSIDERS)
@pytest.mark.parametrize("smtpd", ["mx", "lists"])
def test_3_insiders(site: Site, smtpd: str, row: Row) -> None:
    """Who is an insider is told by the domain of the envelope sender, label by label."""
    row.check(site, smtpd)


# --- recipes 4 and 5: restricted users --------------------------------------------------------------

RESTRICTED = [
    # by an attribute of her own
    ("amy off-site", login("amy"), "amy@my.domain", FRIEND, REJECTED),
    ("amy off-site, by her address as login", login("amy@my.domain"), "amy@my.domain", FRIEND, REJECTED),
    ("amy off-site, login in upper case", login("AMY"), "amy@my.domain", FRIEND, REJECTED),
    ("amy off-site, alias", login("amy"), "amy.ander@my.domain", FRIEND, REJECTED),
    ("amy off-site, no login", NETWORK, "amy@my.domain", FRIEND, REJECTED),
    ("amy off-site, no login, alias", NETWORK, "amy.ander@my.domain", FRIEND, REJECTED),
    ("amy off-site, no login, extension", NETWORK, "amy+x@my.domain", FRIEND, REJECTED),
    ("amy off-site, no login, upper case", NETWORK, "Amy@My.Domain", FRIEND, REJECTED),
    ("amy off-site, no login, completed", NETWORK, "amy", FRIEND, REJECTED),
    ("amy local", login("amy"), "amy@my.domain", "mia@my.domain", OK),
    ("amy local, other domain", login("amy"), "amy@my.domain", "mia@other.example", OK),
    ("amy local, insiders' list", login("amy"), "amy@my.domain", "all@my.domain", OK),
    ("amy, a name that ends alike", login("amy"), "amy@my.domain", "x@notmy.domain", REJECTED),
    ("amy, a name that begins alike", login("amy"), "amy@my.domain", "x@my.domain.evil.example", REJECTED),
    ("amy, by way of us", login("amy"), "amy@my.domain", "x%elsewhere.example@my.domain", REJECTED),
    # a restricted login under another envelope sender
    ("amy as mia", login("amy"), "mia@my.domain", FRIEND, REJECTED),
    ("amy as a stranger", login("amy"), STRANGER, FRIEND, REJECTED),
    ("amy as nobody", login("amy"), "", FRIEND, REJECTED),
    # and the other way round
    ("mia as amy", login("mia"), "amy@my.domain", FRIEND, REJECTED),
    # by a group, and by a group in it
    ("bob off-site", login("bob"), "bob@my.domain", FRIEND, REJECTED),
    ("bob off-site, no login", NETWORK, "bob@my.domain", FRIEND, REJECTED),
    ("bob local", login("bob"), "bob@my.domain", "mia@my.domain", OK),
    ("carol off-site", login("carol"), "carol@my.domain", FRIEND, REJECTED),
    ("carol off-site, no login", NETWORK, "carol@my.domain", FRIEND, REJECTED),
    ("carol as mia", login("carol"), "mia@my.domain", FRIEND, REJECTED),
    ("carol local", login("carol"), "carol@my.domain", "mia@my.domain", OK),
    # not restricted
    ("mia off-site", login("mia"), "mia@my.domain", FRIEND, OK),
    ("mia off-site, other address", login("mia"), "mia@other.example", FRIEND, OK),
    ("a login without an entry", login("unheard.of"), "unheard.of@my.domain", FRIEND, REJECTED),
    ("mia off-site, no login", NETWORK, "mia@my.domain", FRIEND, OK),
    # recipe 5: most are restricted, a group is not
    ("dave off-site", login("dave"), "dave@my.domain", FRIEND, OK),
    ("dave off-site, no login", NETWORK, "dave@my.domain", FRIEND, OK),
    ("dave local", login("dave"), "dave@my.domain", "mia@my.domain", OK),
    ("dave as erin", login("dave"), "erin@my.domain", FRIEND, REJECTED),
    ("erin off-site", login("erin"), "erin@my.domain", FRIEND, REJECTED),
    ("erin off-site, no login", NETWORK, "erin@my.domain", FRIEND, REJECTED),
    ("erin as dave", login("erin"), "dave@my.domain", FRIEND, REJECTED),
    ("erin local", login("erin"), "erin@my.domain", "mia@my.domain", OK),
]


@cases(RESTRICTED)
@pytest.mark.parametrize("smtpd", ["mx", "exercise", "lists"])
def test_4_and_5(site: Site, smtpd: str, row: Row) -> None:
    """Restricted users write to our own domains only; list by list, Postfix blames the sender."""
    row.check(site, smtpd, SENDER_REJECTED if smtpd == "lists" and row.reply == REJECTED else "")


STILL_PROTECTED = [
    ("amy and the owners' list", login("amy"), "amy@my.domain", "board@my.domain", REJECTED),
    ("bob and the list of the allowed", login("bob"), "bob@my.domain", "press@my.domain", REJECTED),
    (
        "carol and the list for our networks",
        login("carol"),
        "carol@my.domain",
        "internal@my.domain",
        REJECTED,
    ),
    ("amy as a stranger and the insiders' list", login("amy"), STRANGER, "all@my.domain", REJECTED),
    ("erin and the owners' list", login("erin"), "erin@my.domain", "board@my.domain", REJECTED),
    ("dave and the owners' list", login("dave"), "dave@my.domain", "board@my.domain", REJECTED),
]


@cases(STILL_PROTECTED)
@pytest.mark.parametrize("smtpd", ["mx", "lists"])
def test_4_still_protected(site: Site, smtpd: str, row: Row) -> None:
    """That a user may write to our domains does not open the lists in them."""
    row.check(site, smtpd)


# --- recipe 6: members, owners, whom a list allows ----------------------------------------------------

LISTS = [
    # team: members who logged in
    ("team: a member", login("amy"), "amy@my.domain", "team@my.domain", OK),
    ("team: a member by address", login("amy@my.domain"), "amy@my.domain", "team@my.domain", OK),
    ("team: a member under another sender", login("amy"), STRANGER, "team@my.domain", OK),
    ("team: a member with the null sender", login("amy"), "", "team@my.domain", OK),
    ("team: a member behind a DN to be escaped", login("zoe"), "o'brien@my.domain", "team@my.domain", OK),
    ("team: the same by address", login("o'brien@my.domain"), "o'brien@my.domain", "team@my.domain", OK),
    ("team: a member of a group in it", login("carol"), "carol@my.domain", "team@my.domain", OK),
    ("team: no member", login("mia"), "mia@my.domain", "team@my.domain", REJECTED),
    ("team: no member as one", login("mia"), "amy@my.domain", "team@my.domain", REJECTED),
    ("team: a login that is a filter", login("ann(*)"), "ann*starr@my.domain", "team@my.domain", REJECTED),
    ("team: nobody logged in", NETWORK, "amy@my.domain", "team@my.domain", REJECTED),
    ("team: an extension, a member", login("amy"), "amy@my.domain", "team+x@my.domain", OK),
    ("team: an extension, no member", login("mia"), "mia@my.domain", "team+x@my.domain", REJECTED),
    # board: owners, who need not be members
    ("board: the owner", login("mia"), "mia@my.domain", "board@my.domain", OK),
    ("board: the owner under another sender", login("mia"), STRANGER, "board@my.domain", OK),
    ("board: a member is no owner", login("ned"), "ned@my.domain", "board@my.domain", REJECTED),
    ("board: a member as the owner", login("ned"), "mia@my.domain", "board@my.domain", REJECTED),
    ("board: nobody logged in", NETWORK, "mia@my.domain", "board@my.domain", REJECTED),
    # press: whom the entry allows, unless it denies them
    ("press: an allowed domain", login("pat"), "pat@partner.example", "press@my.domain", OK),
    (
        "press: the same by address",
        login("pat@partner.example"),
        "pat@partner.example",
        "press@my.domain",
        OK,
    ),
    ("press: an allowed group", login("mia"), "mia@my.domain", "press@my.domain", OK),
    ("press: denied by address", login("eve"), "eve@partner.example", "press@my.domain", REJECTED),
    ("press: denied, another sender", login("eve"), "pat@partner.example", "press@my.domain", REJECTED),
    ("press: denied by DN in the group", login("ned"), "ned@my.domain", "press@my.domain", REJECTED),
    ("press: a denied sender", login("pat"), "eve@partner.example", "press@my.domain", REJECTED),
    ("press: a denied DN as sender", login("mia"), "ned@my.domain", "press@my.domain", REJECTED),
    ("press: a member is not allowed", login("jane"), "jane@my.domain", "press@my.domain", REJECTED),
    ("press: nobody logged in", NETWORK, "pat@partner.example", "press@my.domain", REJECTED),
    ("press: an allowed sender, no login", OUTSIDE, "news@agency.example", "press@my.domain", REJECTED),
    # sales: members by a search
    ("sales: who is in sales", login("hank"), "hank@my.domain", "sales@my.domain", OK),
    ("sales: who is in sales, too", login("ida"), "ida@my.domain", "sales@my.domain", OK),
    ("sales: who is not", login("mia"), "mia@my.domain", "sales@my.domain", REJECTED),
    ("sales: nobody logged in", NETWORK, "hank@my.domain", "sales@my.domain", REJECTED),
    # club: members by their envelope sender
    ("club: a member's address", OUTSIDE, "joe@my.domain", "club@my.domain", OK),
    ("club: a member's alias", OUTSIDE, "jane.roe@my.domain", "club@my.domain", OK),
    ("club: a member's extension", OUTSIDE, "joe+x@my.domain", "club@my.domain", OK),
    ("club: a member elsewhere", OUTSIDE, "pat@partner.example", "club@my.domain", OK),
    ("club: no member's address", OUTSIDE, STRANGER, "club@my.domain", REJECTED),
    ("club: a member's login is not asked", login("joe"), STRANGER, "club@my.domain", REJECTED),
    ("club: the null sender", OUTSIDE, "", "club@my.domain", REJECTED),
]


@cases(LISTS)
@pytest.mark.parametrize("smtpd", ["mx", "lists"])
def test_6_lists(site: Site, smtpd: str, row: Row) -> None:
    """One class for each kind of list: by login where it can be, by envelope sender for the club."""
    row.check(site, smtpd)


# Logins that no entry has, whatever a list says of them: known_logins.
NOBODYS = [
    ("team: a login that is a wildcard", login("*"), "amy@my.domain", "team@my.domain", REJECTED),
    ("team: a login without an entry", login("amyx"), "amy@my.domain", "team@my.domain", REJECTED),
    (
        "press: a login in an allowed domain",
        login("x@partner.example"),
        STRANGER,
        "press@my.domain",
        REJECTED,
    ),
    ("press: an allowed address", login("news@agency.example"), STRANGER, "press@my.domain", REJECTED),
    ("press: another in that domain", login("x@agency.example"), STRANGER, "press@my.domain", REJECTED),
]


@cases(NOBODYS)
@pytest.mark.parametrize("smtpd", ["mx", "lists"])
def test_6_nobody(site: Site, smtpd: str, row: Row) -> None:
    """A login that no entry has is refused before any list is asked about it."""
    row.check(site, smtpd, SENDER_REJECTED if smtpd == "lists" else "")


def test_6_spoof(site: Site) -> None:
    """A stranger who forges a member's address gets into the club, and not into the team."""
    assert OK == site.rcpt("mx", OUTSIDE, "joe@my.domain", "club@my.domain")
    refused = "554 5.7.1 <team@my.domain>: Recipient address rejected: Access denied"
    assert refused == site.rcpt("mx", OUTSIDE, "amy@my.domain", "team@my.domain")


def test_6_auth(site: Site) -> None:
    """The login that AUTH proves counts as the one that XCLIENT tells."""
    with site.session("mx", OUTSIDE) as session:
        assert session.auth("bob").startswith("235")
        session.mail("bob@my.domain")
        assert OK == session.rcpt("team@my.domain")
        refused = "554 5.7.1 <board@my.domain>: Recipient address rejected: Access denied"
        assert refused == session.rcpt("board@my.domain")


# --- recipe 7: a moderated list ---------------------------------------------------------------------

MODERATED = [
    ("a stranger", OUTSIDE, STRANGER, True),
    ("a member", login("joe"), "joe@my.domain", True),
    ("the moderator's address alone", NETWORK, "gina@my.domain", True),
    ("the null sender", OUTSIDE, "", True),
    ("the moderator", login("gina"), "gina@my.domain", False),
    ("the moderator by address", login("gina@my.domain"), "gina@my.domain", False),
    ("the moderator under another sender", login("gina"), STRANGER, False),
]


@pytest.mark.parametrize("smtpd", ["mx", "lists"])
@pytest.mark.parametrize(
    ("client", "sender", "held"), [row[1:] for row in MODERATED], ids=[row[0] for row in MODERATED]
)
def test_7_moderated(site: Site, smtpd: str, client: Client, sender: str, held: bool) -> None:
    """A message waits in the hold queue, unless a moderator who logged in sends it."""
    with site.session(smtpd, client) as session:
        session.mail(sender)
        assert OK == session.rcpt("announce@my.domain")
        queue_id = queued(session)
    if held:
        assert {"announce@my.domain"} == on_hold(site, queue_id)
    else:
        assert "status=sent" in site.postfix.wait_for_log(f"{queue_id}: to=<announce@my.domain>")
        assert set() == on_hold(site, queue_id)


def queued(session: Session) -> str:
    """Sends the message; its queue id."""
    found = re.fullmatch(r"250 2\.0\.0 Ok: queued as (\w+)", session.data())
    assert found is not None
    return found[1]


def on_hold(site: Site, queue_id: str) -> set[str]:
    """The recipients of a message in the hold queue; none when it is not there."""
    messages = (message for message in site.postfix.queue("hold") if message["queue_id"] == queue_id)
    return {str(recipient["address"]) for message in messages for recipient in message["recipients"]}


# --- several recipients -------------------------------------------------------------------------------


def test_some_are_refused(site: Site) -> None:
    """Of several recipients some are refused, each by its own rules; the message goes to the others."""
    with site.session("mx", OUTSIDE) as session:
        session.mail("a@unknown.example")
        replies = {
            "joe+many@my.domain": OK,
            "jane@my.domain": "550 5.1.8 <a@unknown.example>: Sender address rejected: Domain not found",
            "all@my.domain": "554 5.7.1 <all@my.domain>: Recipient address rejected: Access denied",
            "mia+many@my.domain": OK,
            FRIEND: f"554 5.7.1 <{FRIEND}>: Relay access denied",
            "team@my.domain": "554 5.7.1 <team@my.domain>: Recipient address rejected: Access denied",
        }
        assert replies == {recipient: session.rcpt(recipient) for recipient in replies}
        queue_id = queued(session)
    delivered(site, queue_id, "joe+many@my.domain", "mia+many@my.domain")


def delivered(site: Site, queue_id: str, *recipients: str) -> None:
    """The message went to these recipients, and to no others."""
    site.postfix.wait_for_log(f"{queue_id}: removed")
    lines = site.postfix.log(f"{queue_id}: to=<.*status=sent")
    assert sorted(recipients) == sorted(re.findall("to=<(.*?)>", " ".join(lines)))


def test_restricted_among_several(site: Site) -> None:
    """A restricted login reaches the local recipients of a message, and loses the others."""
    refused = "554 5.7.1 <{}>: Recipient address rejected: Access denied"
    with site.session("mx", login("amy")) as session:
        session.mail("mia@my.domain")
        replies = {
            FRIEND: refused.format(FRIEND),
            "mia+amy@my.domain": OK,
            "board@my.domain": refused.format("board@my.domain"),
            "team@my.domain": OK,
            "other@elsewhere.example": refused.format("other@elsewhere.example"),
        }
        assert replies == {recipient: session.rcpt(recipient) for recipient in replies}
        queue_id = queued(session)
    delivered(site, queue_id, "mia+amy@my.domain", "team@my.domain")


def test_nobody_is_left(site: Site) -> None:
    """With every recipient refused there is no message."""
    with site.session("mx", OUTSIDE) as session:
        session.mail(STRANGER)
        assert session.rcpt("all@my.domain").startswith("554 5.7.1")
        assert session.rcpt("team@my.domain").startswith("554 5.7.1")
        assert "554 5.5.1 Error: no valid recipients" == session.data()


def test_hold_among_several(site: Site) -> None:
    """HOLD acts on the whole message, for every recipient that was accepted."""
    with site.session("mx", OUTSIDE) as session:
        session.mail(STRANGER)
        assert OK == session.rcpt("joe+held@my.domain")
        assert session.rcpt("all@my.domain").startswith("554 5.7.1")
        assert OK == session.rcpt("announce@my.domain")
        assert OK == session.rcpt("mia+held@my.domain")
        queue_id = queued(session)
    assert {"joe+held@my.domain", "announce@my.domain", "mia+held@my.domain"} == on_hold(site, queue_id)


def test_transactions_are_apart(site: Site) -> None:
    """What one message brought does not reach the next one on the same connection."""
    with site.session("mx", OUTSIDE) as session:
        session.mail(STRANGER)
        assert OK == session.rcpt("announce@my.domain")
        assert session.rset().startswith("250")
        session.mail("joe@my.domain")
        assert OK == session.rcpt("all+next@my.domain")
        queue_id = queued(session)
    delivered(site, queue_id, "all+next@my.domain")


def test_postfix_complains_about_nothing(site: Site) -> None:
    """No reply of ours was one that Postfix warns about."""
    assert [] == site.postfix.log("warning:|error:|fatal:|panic:")
    told = site.service.log("^(warning|error|critical):|Traceback")
    # Not those about strangers who log in, nor about a server that a busy machine holds up.
    assert [] == [line for line in told if not re.search("belongs to nobody$|^warning: slow search", line)]
