"""What is asked to find out who is in a group, by what a server can do: a controller, 389-ds, OpenLDAP."""

from collections.abc import Mapping, Sequence

import pytest

from ldappolicy.entry import Entry, normal_dn
from ldappolicy.facts import Absent, Found, Lookup, Outcome
from ldappolicy.mapping import PROFILES
from ldappolicy.residue import TEMPORARY_LOOKUP_FAILURE
from tests.language import BASE, Site, asked, decide_in_turn, of_kind, policy

SID = b"\x01\x05" + bytes(6) + b"\x15\0\0\0" + bytes(12) + b"\x51\x04\0\0"
PRIMARY = SID[:-4] + (513).to_bytes(4, "little")
DEPTH = 6


def octets(value: bytes) -> str:
    """As entries have it."""
    return value.decode("utf-8", "surrogateescape")


def dn(name: str) -> str:
    """Somebody's or something's DN."""
    return f"CN={name},{BASE}"


def user(name: str, *groups: str, **more: list[str]) -> Entry:
    """A user, and the groups that name him."""
    return Entry(
        dn(name),
        {
            "sAMAccountName": [name],
            "uid": [name],
            "mail": [f"{name}@my.domain"],
            "objectSid": [octets(SID)],
            "primaryGroupID": ["513"],
            "memberOf": [group if "," in group else dn(group) for group in groups],
            **more,
        },
    )


def group(name: str, *members: str, inside: Sequence[str] = (), **more: list[str]) -> Entry:
    """A group, its members, and the groups that it is in."""
    named = {"member": [dn(member) for member in members], "memberOf": [dn(one) for one in inside]}
    return Entry(dn(name), {"cn": [name], **named, **more})


BUILTIN = f"CN=Users,CN=Builtin,{BASE}"
LIST = {"mail": ["list@my.domain"]}
TREE = [
    *(user("deep", "g1"), user("direct", "list"), user("second", f"g{DEPTH}"), user("none", "other")),
    user("nobody"),
    group("list", "direct", f"g{DEPTH}", **LIST),
    *(
        group(f"g{n}", f"g{n - 1}" if n > 1 else "deep", inside=[f"g{n + 1}" if n < DEPTH else "list"])
        for n in range(1, DEPTH + 1)
    ),
    group("other", "none"),
    Entry(dn("Domain Users"), {"objectSid": [octets(PRIMARY)], "memberOf": [BUILTIN]}),
    Entry(BUILTIN, {"cn": ["Users"], "member": [dn("Domain Users")]}),
]
MEMBERS = "check_sasl_access recipient:members, reject"
TO_LIST = {"sender": "x@y.example", "recipient": "list@my.domain"}


class Controller(Site):
    """A domain controller's rule for nested groups, over entries in memory."""

    def ask(self, lookups: Sequence[Lookup]) -> Mapping[Lookup, Outcome]:
        """See Site; what memberOf has told is not asked for, as the resolver has it."""
        outcomes: dict[Lookup, Outcome] = {}
        for lookup in lookups:
            if lookup[0] == "chain" and not self.missed(lookup):
                entry = self._inside(lookup[1], normal_dn(lookup[2]))
                outcomes[lookup] = Found((entry,)) if entry is not None else Absent()
            elif lookup[0] == "groups" and not self.missed(lookup):
                outcomes[lookup] = Absent()
        return {**outcomes, **super().ask([lookup for lookup in lookups if lookup not in outcomes])}

    def _inside(self, member: str, wanted: str) -> Entry | None:
        by_key = {entry.key: entry for entry in self.directory}
        waiting, seen = [normal_dn(member)], set[str]()
        while waiting:
            seen.add(key := waiting.pop())
            above = [normal_dn(value) for value in by_key[key].values("memberOf")]
            if wanted in above:
                return by_key[normal_dn(member)]
            waiting += [one for one in above if one in by_key and one not in seen]
        return None

    def kinds(self) -> list[str]:
        """What was asked for, without who was."""
        return sorted(lookup[0] for asked in self.rounds for lookup in asked if lookup[0] != "groups")


def controller(recipient: str = MEMBERS, *more: Entry, **options: object) -> Controller:
    """One with the tree."""
    profile = PROFILES["active_directory"]
    return Controller(policy(recipient=recipient), *TREE, *more, mapping=profile, has_chain=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("login", "expected", "asked"),
    [
        ("direct", "DUNNO", []),
        ("deep", "DUNNO", ["chain", "entry", "sid"]),
        ("second", "DUNNO", ["entry", "sid"]),
        ("none", "reject,", ["entry", "sid"]),
        ("nobody", "reject,", ["sid"]),
    ],
)
def test_a_controller_walks_through_groups_itself(login: str, expected: str, asked: list[str]) -> None:
    """Who is named is known already; direct groups are one search; beyond the second level it is asked."""
    site = controller()
    assert site.action(login=login, **TO_LIST) == expected
    assert [kind for kind in site.kinds() if kind in ("chain", "sid", "entry")] == asked


def test_what_is_learned_of_a_controller() -> None:
    """One after the other, users are decided as if each were the first."""
    logins = ("direct", "deep", "none", "second", "nobody", "deep", "none")
    decide_in_turn(controller(), [asked(login=login, **TO_LIST) for login in logins])


def test_membership_by_the_primary_group() -> None:
    """It is in no member attribute, and the controller's rule does not know it."""
    listed = group("staff", mail=["staff@my.domain"])
    inside = Entry(dn("Domain Users"), {"objectSid": [octets(PRIMARY)], "memberOf": [dn("staff")]})
    site = Controller(
        policy(recipient=MEMBERS),
        *(entry for entry in TREE if entry.dn != inside.dn),
        *(inside, listed),
        mapping=PROFILES["active_directory"],
        has_chain=True,
    )
    to_staff = {"sender": "x@y.example", "recipient": "staff@my.domain"}
    assert site.action(login="nobody", **to_staff) == "DUNNO"


@pytest.mark.parametrize("kind", ["chain", "sid"])
def test_a_controller_that_does_not_answer(kind: str) -> None:
    """It is unavailable, and not "no member"."""
    site = controller(missed=of_kind(kind))
    assert site.action(login="deep", **TO_LIST) == TEMPORARY_LOOKUP_FAILURE


@pytest.mark.parametrize(
    ("carrying", "expected", "asked"),
    [
        pytest.param("other", "REJECT", True, id="what a group of his carries"),
        pytest.param("list", "DUNNO", True, id="what a group that he is not in carries"),
        pytest.param("", "DUNNO", False, id="nothing is carried by any group"),
    ],
)
def test_groups_are_looked_at_if_any_carries_something(carrying: str, expected: str, asked: bool) -> None:
    """Else nobody's groups matter to directory:access."""
    rule = {"smtpdMemberSenderAccess": ["reject"]}
    tree = [
        Entry(entry.dn, {**dict(entry.items()), **rule}) if entry.dn == dn(carrying) else entry
        for entry in TREE
    ]
    lists = policy(recipient="check_sasl_access directory:access")
    site = Controller(lists, *tree, mapping=PROFILES["active_directory"], has_chain=True)
    assert site.action(login="none", **TO_LIST) == expected
    assert ("entry" in site.kinds()) is asked


@pytest.mark.parametrize("carries", [False, True])
def test_built_in_groups_are_asked_for_if_they_carry_something(carries: bool) -> None:
    """Everybody is in them, and they are in no other group."""
    rule = {"smtpdMemberSenderAccess": ["reject"]}
    tree = [
        Entry(BUILTIN, {"cn": ["Users"], **(rule if carries else {})}) if entry.dn == BUILTIN else entry
        for entry in (*TREE, group("ruled", **rule))
    ]
    lists = policy(recipient="check_sasl_access directory:access")
    site = Controller(lists, *tree, mapping=PROFILES["active_directory"], has_chain=True)
    assert site.action(login="nobody", **TO_LIST) == ("REJECT" if carries else "DUNNO")
    named = {lookup[1] for asked in site.rounds for lookup in asked if lookup[0] == "entry"}
    assert (BUILTIN in named) is carries


@pytest.mark.parametrize(
    ("profile", "tells_apart", "rounds"),
    [("389ds", False, 1), ("openldap", False, 2 + DEPTH), ("openldap", True, 1 + DEPTH // 2)],
)
def test_member_of_spares_rounds(profile: str, tells_apart: bool, rounds: int) -> None:
    """389-ds names groups at every depth; with matched values the parents of named groups come along."""
    nested = [f"g{n}" for n in range(1, DEPTH + 1)]
    deep = user("deep", *([*nested, "list"] if profile == "389ds" else nested[:1]))
    tree = [deep if entry.dn == deep.dn else entry for entry in TREE]
    ruled = group("ruled", smtpdMemberSenderAccess=["reject"])
    lists = policy(recipient="check_sasl_access directory:access")
    site = Site(lists, *tree, ruled, mapping=PROFILES[profile], tells_apart=tells_apart)
    assert site.action(login="deep", **TO_LIST) == "DUNNO"
    assert sum(any(lookup[0] == "groups" for lookup in asked) for asked in site.rounds) == rounds
