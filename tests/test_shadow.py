"""shadow before a restriction: evaluated, counted, logged, and nothing changes; and what decided a request.

The expectations are those of the list without the restriction that is in shadow.
"""

import asyncio
import json
import os
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ldappolicy.cli import EX_CONFIG, run
from ldappolicy.directory.plan import Where
from ldappolicy.entry import Entry
from ldappolicy.evaluate import Decision
from ldappolicy.importing import Carried, carry_over
from ldappolicy.lint import lint
from ldappolicy.main_cf import read_main_cf
from ldappolicy.mapping import Mapping
from ldappolicy.request import Request
from ldappolicy.service import Settings
from tests.drawn import DIRECTORY, ITEMS, LOCAL_DOMAINS, MISSED, REQUESTS
from tests.language import (
    AMY,
    BASE,
    CONFIGURATION_ERROR,
    POLICY_BASE,
    REQUEST,
    Site,
    answer,
    classes,
    dn,
    entry,
    every,
    group,
    person,
    policy,
    table,
)

R = "reject_unknown_sender_domain"
P = "permit_inet_interfaces"
ERROR = f"shadow: would have been answered: {CONFIGURATION_ERROR}"


def static(action: str) -> str:
    """A check that finds this for everybody."""
    return f"check_client_access static:{{{action}}}"


# ---------------------------------------------------------------- what changes nothing

OF_ONE_ITEM = {
    "reject": "reject,",
    "defer": "defer,",
    "permit": "OK",
    "defer_if_permit": "defer_if_permit,",
    "defer_if_reject": "defer_if_reject,",
    "reject_plaintext_session": "reject_plaintext_session, defer",
    R: f"{R},",
    "reject_rbl_client x": "reject_rbl_client x",
    static("REJECT 5.1.1 no"): "REJECT 5.0.0 no",
    static("450 later"): "450 later",
    static("OK"): "OK",
    static("DEFER_IF_PERMIT 4.7.0 x"): "DEFER_IF_PERMIT 4.7.0 x",
    static("DEFER_IF_REJECT 4.7.0 x"): "DEFER_IF_REJECT 4.7.0 x",
    static("HOLD x"): "HOLD x",
    static("FILTER smtp:x"): "FILTER smtp:x",
    static("PREPEND X: y"): "PREPEND X: y",
    static("REDIRECT a@b.example"): "REDIRECT a@b.example",
    static("BCC a@b.example"): "BCC a@b.example",
    static("DISCARD"): "DISCARD",
    static("reject, permit"): "reject,",
    "ldap:t": "550 from a table without a check",
    "members_only": "reject,",
    "held": "HOLD x",
    "mixed": f"{R}, reject",
    "twice": "550 first",
    # what it is would be an error
    "nosuch": CONFIGURATION_ERROR,
    "loop": CONFIGURATION_ERROR,
    "check_sender_access ldap:nosuch": CONFIGURATION_ERROR,
    "check_client_access fail:": CONFIGURATION_ERROR,
    "unsaid": CONFIGURATION_ERROR,
}
"""What each comes to by itself."""

ENTRIES = [
    *classes(
        members_only="check_sasl_access recipient:members, reject",
        held=f"{static('HOLD x')}, permit",
        mixed=f"{R}, reject, permit",
        twice=f"{static('550 first')}, {static('550 second')}",
        loop="loop",
        unsaid=f"{static('HOLD x')}, reject_rbl_client x",
    ),
    table("t", "my.domain 550 from a table without a check", "shadow.example shadow reject"),
    group("all", [AMY], mail="all@my.domain"),
    person("amy"),
]
AROUND = {
    "alone": ("", ""),
    "before a reject": ("", "reject"),
    "before a text": ("", static("550 5.7.9 no")),
    "behind a residue": (f"{R}, {P}", "reject"),
    "behind a flag": ("defer_if_reject", "reject"),
    "between flags": ("defer_if_reject", "defer_if_permit, permit"),
    "beside an effect": (static("HOLD y"), ""),
    "before a residue": ("", f"{P}, {R}"),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND.keys())
@pytest.mark.parametrize("item", OF_ONE_ITEM)
def test_changes_nothing(item: str, around: tuple[str, str]) -> None:
    """Whatever it would come to, the answer is that of the list without it."""
    before, behind = around
    lists = [", ".join(filter(None, (before, middle, behind))) for middle in (f"shadow {item}", "")]
    with_it, without = (Site(policy(recipient=listed), ENTRIES).decide() for listed in lists)
    kept = ("action", "policy", "error", "unavailable", "restriction", "dn", "outages")
    assert [getattr(without, name) for name in kept] == [getattr(with_it, name) for name in kept]


@pytest.mark.parametrize(("item", "comes_to"), OF_ONE_ITEM.items())
def test_is_counted(item: str, comes_to: str) -> None:
    """What it would have come to is counted, and is a line for the log unless it is a permit."""
    decision = Site(policy(recipient=f"shadow {item}"), ENTRIES).decide()
    assert ("DUNNO", (comes_to,)) == (decision.action, decision.shadowed)
    expected = 0 if comes_to == "OK" else 1
    assert expected == sum(f"would have been answered: {comes_to}" in note for note in decision.notes)


NESTED = [
    # the word
    ("SHADOW reject, permit", "DUNNO", ("reject,",)),
    ("Shadow reject, reject", "reject,", ("reject,",)),
    ("shadow, reject", "DUNNO", ("reject,",)),
    ("shadow", "DUNNO", ()),
    ("reject_rbl_client x, shadow", "reject_rbl_client x", ()),
    ("shadow shadow reject", "DUNNO", ("reject,",)),
    # with a warn_if_reject it is in shadow, and what that warns of is no answer
    ("shadow warn_if_reject reject, permit", "DUNNO", ()),
    ("warn_if_reject shadow reject, permit", "DUNNO", ()),
    ("shadow warn_if_reject permit, reject", "reject,", ("OK",)),
    ("warn_if_reject shadow permit, reject", "reject,", ("OK",)),
    (f"warn_if_reject shadow {R}, {R}", f"{R},", (f"warn_if_reject {R}",)),
    (f"shadow warn_if_reject {R}, {R}", f"{R},", (f"warn_if_reject {R}",)),
    (f"warn_if_reject {R}, shadow reject, {R}", f"warn_if_reject {R}, {R}", ("reject,",)),
    # classes
    ("c", "DUNNO", ("reject,",)),
    ("shadow c", "DUNNO", ("reject,",)),
    ("ends, reject", "reject,", ()),
    ("shadow ends, reject", "reject,", ()),
    ("warn_if_reject c, reject", "reject,", ()),
    # right-hand sides
    (static("shadow reject"), "DUNNO", ("reject,",)),
    (static("shadow, c, reject"), "reject,", ("reject,",)),
    (static("shadow"), "DUNNO", ()),
    (f"shadow {static('warn_if_reject reject')}, {static('shadow, permit')}", "DUNNO", ("OK",)),
    # each for itself
    (f"shadow reject, shadow {static('450 x')}, shadow reject", "DUNNO", ("reject,", "450 x", "reject,")),
    # HOLD and its like
    (f"shadow {static('HOLD a')}, {static('HOLD b')}", "HOLD b", ("HOLD a",)),
    (f"{static('HOLD a')}, shadow {static('DISCARD')}", "HOLD a", ("DISCARD",)),
    (f"{P}, {static('HOLD a')}, shadow reject, reject", f"{P}, reject", ("reject,",)),
    (f"shadow {static('HOLD a')}, {P}, reject", f"{P}, reject", ("HOLD a",)),
    # flags that stand count in there, flags of its own end there
    ("defer_if_reject, shadow reject", "defer_if_reject,", ("defer_if_reject, reject",)),
    ("shadow defer_if_reject, reject", "reject,", ("defer_if_reject,",)),
    ("shadow defer_if_reject, defer_if_permit, permit", "defer_if_permit,", ("defer_if_reject,",)),
]


@pytest.mark.parametrize(("listed", "action", "shadowed"), NESTED, ids=[case[0] for case in NESTED])
def test_nesting(listed: str, action: str, shadowed: tuple[str, ...]) -> None:
    """The word covers the next item and all of it, wherever it stands, and nothing else."""
    bodies = classes(c="shadow reject, permit_sasl_authenticated", ends="permit_sasl_authenticated, shadow")
    decision = Site(policy(recipient=listed), bodies).decide()
    assert (action, shadowed) == (decision.action, decision.shadowed)


@pytest.mark.parametrize("words", ["shadow warn_if_reject", "warn_if_reject shadow"])
def test_warned_and_in_shadow(words: str) -> None:
    """In either order the note is that of warn_if_reject."""
    decision = Site(policy(recipient=f"{words} {static('REJECT no')}")).decide()
    assert ("warn_if_reject: would have been refused: REJECT no",) == decision.notes


def test_no_class_has_that_name() -> None:
    """A class of that name takes nothing from the word."""
    for name in ("shadow", "Shadow"):
        assert answer(f"{name} permit, reject", classes(**{name: "permit"})) == "reject,"


def test_error_says_where() -> None:
    """The note of a server configuration error tells what led there."""
    decision = Site(policy(recipient="shadow outer"), classes(outer="inner, permit", inner="nosuch")).decide()
    (note,) = decision.notes
    where = f"{dn('cn=outer,ou=classes,ou=policy')}: inner: {dn('cn=inner,ou=classes,ou=policy')}: nosuch"
    assert f"{ERROR} (shadow outer: {where}: unknown restriction or class 'nosuch')" == note
    assert "" == decision.error


@pytest.mark.parametrize("behind", ["", "permit", "reject", R])
@pytest.mark.parametrize("item", ["check_sender_access directory:access", "members_only", "warn_if_reject c"])
def test_unavailable(item: str, behind: str) -> None:
    """An outage inside is told of as others are, and changes nothing."""
    bodies = classes(c="check_sender_access directory:access, permit")
    listed = ", ".join(filter(None, (f"shadow {item}", behind)))
    site = Site(policy(recipient=listed), ENTRIES, bodies, missed=every)
    decision = site.decide(recipient="all@my.domain", login="amy")
    expected = answer(behind or "permit_sasl_authenticated", login="amy")
    assert (expected, False, True) == (decision.action, decision.unavailable, bool(decision.outages))


def test_asked_for_together() -> None:
    """What is in shadow asks for its lookups with all the others."""
    rounds = []
    for word in ("", "shadow "):
        site = Site(
            policy(recipient=f"{word}members_only, check_recipient_access directory:access"),
            ENTRIES,
            classes(unused="permit"),
        )
        site.decide(recipient="all@my.domain", login="amy")
        rounds.append([set(asked) for asked in site.rounds])
    in_force, in_shadow = rounds
    assert in_force[0] <= in_shadow[0]
    assert set().union(*in_force) <= set().union(*in_shadow)
    assert len(in_shadow) <= len(in_force) + 1


def test_one_request_after_another() -> None:
    """What is counted for one request is not told of the next, in whatever order they come."""
    site = Site(
        policy(recipient="shadow check_sender_access ldap:s, reject"),
        table("s", "a.example REJECT a", "b.example OK"),
    )
    told = {
        sender: site.decide(sender=f"x@{sender}").shadowed
        for sender in ("a.example", "b.example", "c.example")
    }
    again = {sender: site.decide(sender=f"x@{sender}").shadowed for sender in reversed(told)}
    assert {"a.example": ("REJECT a",), "b.example": ("OK",), "c.example": ()} == told == again


# ---------------------------------------------------------------- any policy

WORDS = st.sampled_from(("", "", "", "warn_if_reject "))
RESTRICTIONS = ITEMS.filter(lambda item: item != "warn_if_reject")
LISTED = st.lists(st.builds("{}{}".format, WORDS, RESTRICTIONS), min_size=1, max_size=5)


@st.composite
def tried(draw: st.DrawFn) -> tuple[list[Entry], list[Entry]]:
    """A policy where one item is in shadow, and the same without it."""
    lists = {name: draw(LISTED) for name in draw(st.sets(st.sampled_from(("client", "relay")), max_size=1))}
    lists["recipient"] = ["permit_sasl_authenticated", "k", *draw(LISTED)]
    body = ["reject_unauth_pipelining", *draw(LISTED)]
    place = draw(st.sampled_from([*lists.values(), body]))
    at = draw(st.integers(1, len(place)) if place[0] in (lists["recipient"][0], body[0]) else st.just(0))
    item = place[at] if at < len(place) else draw(RESTRICTIONS)
    more = draw(LOCAL_DOMAINS)

    def made(*middle: str) -> list[Entry]:
        def text(some: list[str]) -> str:
            return ", ".join([*some[:at], *middle, *some[at + 1 :]] if some is place else some)

        return [policy(**{name: text(some) for name, some in lists.items()}, **more), *classes(k=text(body))]

    return made(f"shadow {item}"), made()


def of(site_entries: list[Entry], request: dict[str, str], missed: set[str]) -> Decision:
    """The decision where some kinds of lookups are unavailable."""
    return Site(site_entries, DIRECTORY, missed=lambda lookup: lookup[0] in missed, permit_ok=True).decide(
        **request
    )


@pytest.mark.servers
@settings(max_examples=200, deadline=None)
@given(tried(), REQUESTS, MISSED)
def test_as_if_it_were_not_there(
    policies: tuple[list[Entry], list[Entry]], request: dict[str, str], missed: set[str]
) -> None:
    """An item in shadow makes the decision that deleting it makes, but for what is told of it."""
    with_it, without = (of(some, request, missed) for some in policies)
    names = ("action", "policy", "error", "unavailable", "restriction", "dn")
    assert [getattr(without, name) for name in names] == [getattr(with_it, name) for name in names]
    assert set(without.outages) <= set(with_it.outages)
    assert set(without.notes) <= set(with_it.notes)


@pytest.mark.servers
@settings(max_examples=100, deadline=None)
@given(RESTRICTIONS, LOCAL_DOMAINS, REQUESTS)
def test_what_is_counted(item: str, more: dict[str, str], request: dict[str, str]) -> None:
    """What is counted of an item is what a policy of that item alone answers."""
    alone, in_shadow = (
        Site(policy(recipient=listed, **more), DIRECTORY).decide(**request)
        for listed in (item, f"shadow {item}")
    )
    assume(not alone.unavailable)
    counted = [action for action in in_shadow.shadowed if action != "OK"]
    assert [action for action in (alone.action,) if action != "DUNNO"] == counted


# ---------------------------------------------------------------- what decided

PEOPLE = [
    *classes(members_only="check_sasl_access recipient:members, reject", odd="nosuch", strict=f"{R}, permit"),
    table("t", "evil.example REJECT no", "good.example OK", "flag.example DEFER_IF_PERMIT x"),
    group("all", [AMY], mail="all@my.domain", smtpdRecipientAccess="members_only"),
    group("hold", [AMY], mail="hold@my.domain", smtpdRecipientAccess="HOLD x"),
    person("amy", smtpdRecipientAccess="strict"),
    person("bob", smtpdRecipientAccess="odd"),
    person("cal", smtpdRecipientAccess="REJECT no"),
    person("dan", smtpdRecipientAccess="REJECT no"),
]
ACCESS = "recipient: check_recipient_access directory:access"
T = dn("cn=t,ou=tables,ou=policy")
DECIDED = {
    "the end of the lists": ({}, "", ""),
    "a table": ({"sender": "x@evil.example"}, "sender: check_sender_access ldap:t", T),
    "a permit": ({"sender": "x@good.example"}, "", ""),
    "a flag": ({"sender": "x@flag.example"}, "sender: check_sender_access ldap:t", T),
    "a class": (
        {"recipient": "all@my.domain"},
        f"{ACCESS}: members_only: reject",
        dn("cn=all,ou=groups"),
    ),
    "a permit of a class": (
        {"recipient": "all@my.domain", "login": "amy"},
        f"{ACCESS}: members_only: check_sasl_access recipient:members",
        dn("cn=all,ou=groups"),
    ),
    "an effect": ({"recipient": "hold@my.domain"}, ACCESS, dn("cn=hold,ou=groups")),
    "a residue": ({"recipient": "amy@my.domain"}, f"{ACCESS}: strict: {R}", AMY),
    "an error": ({"recipient": "bob@my.domain"}, f"{ACCESS}: odd: nosuch", dn("uid=bob,ou=people")),
    "one entry": ({"recipient": "cal@my.domain"}, ACCESS, dn("uid=cal,ou=people")),
    "another entry of the same action": ({"recipient": "dan@my.domain"}, ACCESS, dn("uid=dan,ou=people")),
    "a built-in": ({"sender": "nodomain"}, "sender: Reject_Non_FQDN_Sender", ""),
    "one list alone": (
        {"policy_context": "default/client"},
        "client: check_client_access static:OK",
        "",
    ),
}
LISTED_ALL = {
    "client": "shadow reject, check_client_access static:OK",
    "sender": "Reject_Non_FQDN_Sender, check_sender_access ldap:t",
    "recipient": "check_recipient_access directory:access",
}


def test_what_decided() -> None:
    """Names from the list to the restriction, and whose value it was, also for answers that are kept."""
    site = Site(policy(**LISTED_ALL), PEOPLE)
    expected = {name: case[1:] for name, case in DECIDED.items()}
    for order in (list(DECIDED), list(reversed(DECIDED))):
        for _ in range(2):
            decisions = {name: site.decide(**DECIDED[name][0]) for name in order}
            assert expected == {name: (decisions[name].restriction, decisions[name].dn) for name in DECIDED}


def test_what_decided_is_traced_alike() -> None:
    """With a trace the same decided."""
    site = Site(policy(**LISTED_ALL), PEOPLE)
    for attributes, restriction, of_whom in DECIDED.values():
        login = attributes.get("login", "")
        sasl = {"sasl_username": login, "sasl_method": "PLAIN"} if login else {}
        request = Request.from_attributes({**REQUEST, **sasl, **attributes})
        decision = site.resolve(request, [])
        assert (restriction, of_whom) == (decision.restriction, decision.dn)


TOGETHER = [
    # the refusal that the reply ends in, the first flag, the action that is sent
    ({"recipient": f"{P}, {R}, {static('550 no')}"}, f"recipient: {static('550 no')}"),
    ({"client": f"{P}, defer", "recipient": "reject"}, "client: defer"),
    ({"client": f"{P}, reject", "recipient": "Reject"}, "client: reject"),
    ({"client": "defer_if_permit", "recipient": static("DEFER_IF_PERMIT x")}, "client: defer_if_permit"),
    ({"client": "permit", "recipient": f"{static('HOLD x')}, permit"}, f"recipient: {static('HOLD x')}"),
    ({"client": static("DISCARD"), "recipient": "reject"}, f"client: {static('DISCARD')}"),
    ({"client": f"{R}", "recipient": f"{P}, {R}"}, f"client: {R}"),
    ({"recipient": f"warn_if_reject {static('REJECT no')}, permit"}, "recipient: permit"),
    ({"client": "permit", "recipient": "permit_sasl_authenticated"}, ""),
]


@pytest.mark.parametrize(("lists", "restriction"), TOGETHER)
def test_what_decided_of_several(lists: dict[str, str], restriction: str) -> None:
    """Of several lists and restrictions it is the one whose action is sent."""
    assert restriction == Site(policy(**lists)).decide().restriction


def test_what_is_unavailable_decided() -> None:
    """An outage names the restriction that needed the lookup."""
    site = Site(policy(recipient="c"), classes(c="check_sender_access directory:access"), missed=every)
    assert "recipient: c: check_sender_access directory:access" == site.decide().restriction


def test_an_ok_that_does_not_count() -> None:
    """What trusts a routed recipient has decided nothing."""
    site = Site(policy(recipient="check_recipient_access static:{permit}, reject"))
    decision = site.decide(recipient="a%b@foreign.example")
    assert ("reject,", "recipient: reject") == (decision.action, decision.restriction)


# ---------------------------------------------------------------- lint

SETTINGS = Settings(BASE, POLICY_BASE, Mapping())
LINTED = [
    # names are looked at
    ("shadow nosuch", {}, ["error: {}: unknown restriction or class 'nosuch'"]),
    ("shado reject", {}, ["error: {}: unknown restriction or class 'shado', shadow is similar"]),
    ("shadow check_sender_access ldap:x", {}, ["error: {}: unknown table 'ldap:x'"]),
    # what it comes to is not
    (f"shadow {static('HOLD')}, {R}", {}, []),
    (f"{static('HOLD')}, shadow {R}", {}, []),
    (f"{static('HOLD')}, shadow c", {"c": f"{R}, {P}"}, []),
    (f"c, {R}", {"c": f"shadow {static('DISCARD')}, shadow {P}"}, []),
    (f"{static('shadow, ' + R)}, {static('HOLD')}", {}, []),
    (
        "shadow reject, shadow permit, shadow warn_if_reject permit, warn_if_reject shadow permit, reject",
        {},
        [],
    ),
    (
        "shadow reject, permit, reject",
        {},
        ["warning: {}: 'reject' is never reached: permit before it ends the list"],
    ),
    (
        "permit, shadow reject",
        {},
        ["warning: {}: 'shadow reject' is never reached: permit before it ends the list"],
    ),
    ("check_reverse_client_hostname_access static:{shadow permit}", {}, []),
    (
        "shadow check_sender_access directory:access, check_recipient_access directory:access",
        {},
        [],
    ),
]


@pytest.mark.parametrize(("listed", "bodies", "faults"), LINTED, ids=[case[0] for case in LINTED])
def test_lint(listed: str, bodies: dict[str, str], faults: list[str]) -> None:
    """What is in shadow is read, and cannot be in the way of a reply."""
    someone = entry("uid=a", uid="a", mail="a@b.example", smtpdSenderAccess="DUNNO")
    site = Site(policy(recipient=listed), classes(**bodies), someone)
    found = asyncio.run(lint(site.policies, site.directory, SETTINGS, Where(BASE)))
    spot = f"{dn('cn=default,ou=policy')}: smtpdRecipientRestrictions"
    assert [text.format(spot) for text in faults] == [str(fault) for fault in found]


@pytest.mark.parametrize("name", ["shadow", "Shadow"])
def test_lint_of_a_class(name: str) -> None:
    """No class can have the name."""
    site = Site(policy(), classes(**{name: "reject"}))
    (fault,) = asyncio.run(lint(site.policies, site.directory, SETTINGS, Where(BASE)))
    assert f"{name!r} is the name of a restriction, expected another name for the class" == fault.text


# ---------------------------------------------------------------- import

CLASS = "smtpd_restriction_classes = Shadow\nShadow = reject_unauth_pipelining, reject\n"
WHERE = "smtpd_helo_restrictions = "


def imported(folder: Path, text: str, lines: str = "") -> Carried:
    """What becomes of a main.cf, beside a table."""
    (folder / "t").write_text(lines or "a.example OK\n")
    (folder / "main.cf").write_text(text)
    for name in ("t", "main.cf"):
        os.utime(folder / name, (1000, 1000))
    return carry_over(read_main_cf(folder / "main.cf"), POLICY_BASE)


def helo(carried: Carried, name: str) -> str | None:
    """What the imported policy answers to a HELO."""
    site = Site([Entry(dn_, values) for dn_, values in carried.records])
    return site.action(protocol_state="HELO", helo_name=name)


IMPORTED = {
    "a class": (WHERE + "Shadow, permit", "reject_unauth_pipelining, reject"),
    "before a permit": (WHERE + "Shadow permit", "reject_unauth_pipelining, reject"),
    "under warn_if_reject": (
        WHERE + "warn_if_reject Shadow, defer",
        "warn_if_reject reject_unauth_pipelining, defer",
    ),
    "in a table": (
        WHERE + "check_helo_access hash:$config_directory/t, permit",
        "reject_unauth_pipelining, reject",
    ),
    "in a cidr table": (
        WHERE + "check_client_access cidr:{{203.0.113.0/24 Shadow}}",
        "reject_unauth_pipelining, reject",
    ),
    "in a static table": (WHERE + "check_helo_access static:Shadow, permit", CONFIGURATION_ERROR),
    "in an inline table": (
        WHERE + "check_helo_access inline:{a.example=Shadow}, permit",
        CONFIGURATION_ERROR,
    ),
    "no class": (WHERE + "shadow, permit", CONFIGURATION_ERROR),
}


@pytest.mark.parametrize(("text", "action"), IMPORTED.values(), ids=IMPORTED.keys())
def test_import(tmp_path: Path, text: str, action: str) -> None:
    """A class of main.cf with that name keeps its meaning under another one, or closes."""
    carried = imported(tmp_path, f"{CLASS}{text}\n", "a.example Shadow, permit\n")
    assert action == helo(carried, "a.example")
    assert any(
        "class 'Shadow' is carried over as 'postfix-Shadow'" in warning for warning in carried.warnings
    )


# ---------------------------------------------------------------- policy.shadow, and eval

TREE = f"""\
dn: {BASE}
dc: example

dn: {POLICY_BASE}
ou: policy

dn: cn=default,{POLICY_BASE}
objectClass: smtpdPolicy
cn: default
smtpdRecipientRestrictions: shadow defer, LISTED
"""


def evaluated(
    folder: Path, capsys: pytest.CaptureFixture[str], listed: str, *words: str
) -> tuple[int, str, str]:
    """Status, output and complaints of eval, with and without policy.shadow."""
    (folder / "tree.ldif").write_text(TREE.replace("LISTED", listed))
    bases = f"search_base = '{BASE}'\npolicy_base = '{POLICY_BASE}'"
    shadow = str("policy.shadow" in words).lower()
    (folder / "config.toml").write_text(
        f"[directory]\nuri = ['ldif:tree.ldif']\n{bases}\n[policy]\nshadow = {shadow}\n"
    )
    options = [word for word in words if word.startswith("--")]
    status = run(["-c", str(folder / "config.toml"), "eval", *options, "sender=a@b", "recipient=c@d"])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A restriction in shadow is explained, and told of in the object."""
    assert (0, "action=reject,\n", "") == evaluated(tmp_path, capsys, "reject")
    explained = evaluated(tmp_path, capsys, "reject", "--explain")[1]
    assert "    shadow defer: DUNNO (in shadow: defer,)\n" in explained
    assert "  note: shadow: would have been answered: defer, (" in explained
    found = json.loads(evaluated(tmp_path, capsys, "reject", "--json")[1])
    expected = {"action": "reject,", "shadowed": ["defer,"], "restriction": "recipient: reject", "dn": ""}
    assert expected == {name: found[name] for name in expected}
    assert {"shadow", "decided"}.isdisjoint(found)


def test_eval_of_a_policy_in_shadow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With policy.shadow the action is the one that is answered, and the true one is told beside it."""
    said = "ldappolicy: in shadow: action=reject, is not answered\n"
    assert (0, "action=DUNNO\n", said) == evaluated(tmp_path, capsys, "reject", "policy.shadow")
    status, out, err = evaluated(tmp_path, capsys, "reject", "policy.shadow", "--json")
    found = json.loads(out)
    expected = {"action": "DUNNO", "shadow": True, "decided": "reject,", "shadowed": ["defer,"]}
    assert (0, said, expected) == (status, err, {name: found[name] for name in expected})


def test_eval_of_an_error_in_shadow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A server configuration error is the status of eval also where nobody is answered with it."""
    status, out, err = evaluated(tmp_path, capsys, "nosuch", "policy.shadow")
    assert (EX_CONFIG, "action=DUNNO\n") == (status, out)
    assert f"action={CONFIGURATION_ERROR} is not answered" in err
