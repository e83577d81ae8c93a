"""Every spelling that Postfix delivers to a protected list is refused: held to Postfix itself.

The same recipients go to two smtpd services: one with the rule in main.cf, one that asks us. Whatever means
the list to Postfix has to be refused by us. What Postfix takes for something else may be refused as well
(a routed address at a literal that might be ours), never the other way round.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ldappolicy.oracle.smtp import Session
from tests.labs.ldappolicy import Ldappolicy
from tests.labs.postfix import OUTSIDE, WORLD, Postfix, require_postfix, smtpds

pytestmark = pytest.mark.servers

LIST = "all@my.domain"
SENDER = "stranger@elsewhere.example"

# One of each kind that was ever found to mean the list, or that comes close.
KNOWN = [
    *("all@my.domain", "ALL@My.Domain", "all+x@my.domain", '"all"@my.domain', "all@my.domain.", "all"),
    *("all%my.domain@my.domain", "my.domain!all@my.domain", '"all@my.domain"@my.domain', "all%my.domain"),
    *("all%my.domain@", "all@my.domain@", '"all@my.domain"@', "my.domain!all@", "all+x%my.domain@"),
    *("all%my.domain@@", "all%my.domain@my.domain@", "all%my.domain.@", "all%my.domain%", "all%my.domain%@"),
    *("!all%my.domain", "!all%my.domain@my.domain", "!my.domain!all@my.domain", "my.domain!!all%my.domain@"),
    *("all%my.domain@@my.domain", "\\@:all", "\\@my.domain@:all", "\\@:my.domain!all", "@:@:all"),
    *("my.domain!all\\ ", 'my.domain!\\"all', "all%my.domain@[127.0.0.1]", "my.domain!all@[127.0.0.1]"),
    *("all%my.domain%[127.0.0.1]", "all%my.domain@localhost", "all%%my.domain", "all@@my.domain"),
    *('"all@my.domain "@my.domain', '"my.domain! all"@my.domain', '"my.domain!\\"all\\""@my.domain'),
    *('"my.domain!a\\\\ll"@my.domain', '"all@\\"my.domain\\""@my.domain', '"@x:my.domain!all"@my.domain'),
    *('"@x:all@my.domain"@my.domain', '"my.domain! all%other.example"@my.domain', "all@\\ my.domain"),
    *("all%my.domain@other.example", "my.domain!all@other.example", "other.example!all%my.domain"),
    *("all%my.domain@elsewhere.example", "ally@my.domain", "all@notmy.domain", '"all"%my.domain@my.domain'),
]

TOKENS = [
    *(
        "all",
        "all",
        "all",
        "my.domain",
        "my.domain",
        "%",
        "!",
        "@",
        "@",
        ".",
        '"',
        "+x",
        "x",
        "\\",
        "@:",
        " ",
    ),
    *("%my.domain", "@my.domain", "my.domain!", "other.example", "localhost", "[127.0.0.1]", "@x:", "()"),
]


class Pair:
    """Two sessions that are asked the same, opened anew before Postfix has had enough of errors."""

    def __init__(self, postfix: Postfix) -> None:
        self._postfix = postfix
        self._sessions: list[Session] = []
        self._asked = 0

    def ask(self, recipient: str) -> tuple[str, str]:
        """What Postfix with the rule answers, and what we do."""
        if self._asked % 15 == 0:
            self.close()
            self._sessions = [self._open(name) for name in ("native", "mx")]
        self._asked += 1
        native, ours = (session.command(f"RCPT TO:<{recipient}>") for session in self._sessions)
        return native, ours

    def _open(self, service: str) -> Session:
        session = self._postfix.session(service, **OUTSIDE)
        session.ehlo()
        session.mail(SENDER)
        return session

    def close(self) -> None:
        """Ends both."""
        for session in self._sessions:
            session.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """The example company behind one smtpd; the rule for one address in the main.cf of the other."""
    require_postfix()
    rule = f"reject_unauth_destination, check_recipient_access inline:{{{{{LIST}=REJECT native}}}}"
    with ExitStack() as stack:
        service = stack.enter_context(Ldappolicy({"log": {"decisions": "none"}}))
        smtpd = {"mx": smtpds(service)["mx"], "native": {"smtpd_recipient_restrictions": rule}}
        both = Pair(stack.enter_context(Postfix(smtpd, dns=WORLD)))
        stack.callback(both.close)
        yield both


@pytest.mark.parametrize("recipient", KNOWN)
def test_known_spelling(pair: Pair, recipient: str) -> None:
    """What means the list to Postfix does not get in."""
    native, ours = pair.ask(recipient)
    assert not ours.startswith("2") or "native" not in native, f"{native} / {ours}"


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 4))])
def test_random_spellings(pair: Pair, seed: int) -> None:
    """Nor does anything that is put together from the pieces."""
    chance = random.Random(seed)
    opened, meant = [], 0
    for _ in range(1500):
        recipient = "".join(chance.choice(TOKENS) for _ in range(chance.randint(2, 8)))
        native, ours = pair.ask(recipient)
        meant += "native" in native
        if "native" in native and ours.startswith("2"):
            opened.append((recipient, ours))
    assert opened == []
    assert meant > 20
