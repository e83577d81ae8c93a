"""Targets: what policies are made of, addresses and their rewriting, and policies as a whole."""

import ipaddress
from contextlib import suppress

from ldappolicy import address, network
from ldappolicy.action import parse_action, split_list, split_places
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.evaluate import Choices, Decision, Evaluator, Lacking
from ldappolicy.facts import Absent, Facts, Lookup, Missed, Outcome
from ldappolicy.mapping import Mapping
from ldappolicy.policy import (
    Broken,
    Item,
    Policy,
    parse_inline,
    parse_line,
    parse_list,
    parse_right_hand_side,
    parse_static,
    parse_table,
    read_policies,
)
from ldappolicy.protocol import encode_reply
from ldappolicy.request import Request
from ldappolicy.rewriting import rewrite
from tests.fuzz.target import Target, growths, kind_of, text_of

# ---------------------------------------------------------------- lists and right-hand sides


def restriction_list(data: bytes) -> str:
    """A list that is printed is read again; a table that cannot serve its check is told."""
    text = text_of(data)
    said = [_list(text, name) for name in ("", "sender", "recipient")]
    for at, token in _places(text):
        assert text.startswith(token, at - 1)
    return said[0] + said[-1]


def _places(text: str) -> tuple[tuple[int, str], ...]:
    try:
        return split_places(text)
    except InputError:
        return ()


def _list(text: str, name: str) -> str:
    try:
        items = parse_list(text, name)
    except InputError as error:
        return kind_of(error)
    if "{" not in text:
        assert parse_list(", ".join(map(str, items)), name) == items
    return f"{min(len(items), 3)} {sorted({_kind(item) for item in items})[:4]}"


def _kind(item: Item) -> str:
    return f"{bool(item.name)}{bool(item.table)}{bool(item.argument)}{kind_of(InputError(item.fault))[:30]}"


def right_hand_side(data: bytes) -> str:
    """An action is read from every value; the names of a list are items, each with its fault."""
    text = text_of(data)
    action = parse_action(text)
    assert parse_action(action.text) == action
    items = parse_right_hand_side(action.tokens) if action.tokens else ()
    assert bool(items) == bool(action.tokens)
    parse_static(text)
    with suppress(InputError):
        assert parse_right_hand_side(split_list(text)) == parse_right_hand_side(split_list(f" {text} "))
    return f"{action.kind} {sorted({_kind(item) for item in items})[:4]}"


def table(data: bytes) -> str:
    """Lines of tables of either kind, members and URLs; `inline:` too."""
    values = text_of(data).split("\n")
    said = []
    for attributes in (
        {"smtpdAccess": values},
        {"smtpdAccess": values, "smtpdAccessType": ["cidr"]},
        {"smtpdAccessMember": values, "smtpdAccessURL": values},
    ):
        try:
            part = parse_table(Entry("cn=t,dc=x", {"cn": ["t"], **attributes}), ("dc=x",))
        except InputError as error:
            said.append(kind_of(error))
        else:
            said.append(f"{len(part.lines) > 0} {len(part.cidr) > 0} {len(part.urls) > 0}")
    with suppress(InputError):
        key, action = parse_line(values[0])
        assert key == key.casefold() or "\u0345" in key or key.casefold() != key.casefold().casefold()
        assert parse_action(action.text) == action
    return " ".join(said)


def inline(data: bytes) -> str:
    """`inline:{...}` and `static:`."""
    text = text_of(data)
    parse_static(text)
    try:
        lines = parse_inline(text)
    except InputError as error:
        return kind_of(error)
    assert lines
    return f"{min(len(lines), 3)} {sorted(action.kind.name for action in lines.values())[:3]}"


# ---------------------------------------------------------------- addresses


OURS = frozenset(("my.domain", "b"))


def addresses(data: bytes) -> str:
    """What is rewritten stays as it is; keys are bounded and in form."""
    first, _, second = text_of(data).partition("\n")
    folded = address.fold(first)
    for delimiters in ("", "+", "+-"):
        for parents in (True, False):
            keys = address.address_keys(folded, delimiters, parents)
            assert {form for form in keys.exact if len(form) <= address.LONGEST_KEY} <= set(keys.keys)
            assert len(keys.keys) <= 9 + folded.count(".")
        bare = address.without_extension(folded, delimiters) if "@" in folded else None
        assert bare is None or (len(bare) < len(folded) and bare.endswith("@" + folded.rpartition("@")[2]))
    if "@" in first:
        assert address.unquoted(address.quoted(first, always=True)) == first
    _host(first)
    _client(first, second)
    return _rewritten(folded, second)


def _rewritten(folded: str, myorigin: str) -> str:
    said = []
    for origin in ("", "my.domain", myorigin[:64]):
        try:
            found = rewrite(folded, origin, OURS.__contains__)
        except InputError as error:
            said.append(kind_of(error))
            continue
        again = rewrite(folded, origin, OURS.__contains__)
        assert found == again
        domain = found.rpartition("@")[2]
        # What stands in quotes or brackets, or behind a backslash, is one word: no routing.
        is_plain = set('"\\[').isdisjoint(folded)
        assert not (is_plain and domain in OURS and address.is_routed(found)), found
        said.append(f"{found == folded} {address.is_routed(found)}")
    return " ".join(said)


def _host(text: str) -> None:
    assert address.is_host_address(text) == _is_host_address(text)
    if address.is_hostname(text):
        assert address.is_unicode_hostname(text)
        assert not address.is_host_address(text)
    address.is_unicode_hostname(text)
    address.is_address_literal(text)
    for parents in (True, False):
        assert all(text.endswith(key) for key in address.domain_keys(text, parents))


def _is_host_address(text: str) -> bool:
    """By the library: but for zeros in front, and for networks of the name `0.x`."""
    if ":" in text:
        with suppress(ValueError):
            return "%" not in str(ipaddress.IPv6Address(text))
        return False
    octets = text.split(".")
    if not all(octet.isascii() and octet.isdigit() and len(octet) < 10 for octet in octets):
        return False
    with suppress(ValueError):
        parsed = ipaddress.IPv4Address(".".join(str(int(octet)) for octet in octets))
        return int(parsed) >> 24 != 0 or int(parsed) == 0
    return False


def _client(name: str, client: str) -> None:
    keys = address.client_keys(name, client, parents=True)
    assert all(name.endswith(key) or client.startswith(key) for key in keys)
    for parse in (network.parse_network, network.parse_pattern):
        with suppress(InputError):
            parse(name)
    patterns = []
    for word in name.split(","):
        with suppress(InputError):
            patterns.append(network.parse_pattern(word))
    assert network.match_client(patterns, name, client) in (True, False)


# ---------------------------------------------------------------- policies as a whole


BASES = ("dc=x", "ou=policy,dc=x")
REQUESTS = tuple(
    Request(
        protocol_state=state,
        protocol_name="ESMTP",
        client_address="192.0.2.1",
        client_name="a.b.example",
        helo_name="h.example",
        sender="amy@my.domain",
        recipient="x%y@my.domain",
        sasl_method=method,
        sasl_username=login,
    )
    for state in ("RCPT", "MAIL", "CONNECT")
    for method, login in (("", ""), ("PLAIN", "amy"))
)


def absent(lookup: Lookup) -> Outcome:
    """The directory has nothing."""
    return Absent()


def missed(lookup: Lookup) -> Outcome:
    """The directory does not answer."""
    return Missed("down")


def policies(data: bytes) -> str:
    """Policies with faults are faults, no exceptions; each request has an answer that can be said."""
    try:
        entries = list(LdifDirectory.parse(data, "f"))
    except InputError as error:
        return kind_of(error)
    found = read_policies(entries, BASES)
    again = read_policies(reversed(entries), BASES)
    assert (found.revision, found.faults, found.policies) == (again.revision, again.faults, again.policies)
    kept = read_policies(entries[:1], BASES, found)
    assert {name for name, one in found.policies.items() if isinstance(one, Policy)} <= kept.policies.keys()
    for fault in found.faults:
        kind_of(InputError(str(fault).replace("\n", "")))
    broken = any(isinstance(one, Broken) for one in found.policies.values())
    evaluator = Evaluator(found, Mapping(), Choices("default"))
    actions = {_action(evaluator, request, get) for request in REQUESTS for get in (absent, missed)}
    return f"{len(found.policies)} {len(found.classes)} {broken} {sorted(actions)}"


def _action(evaluator: Evaluator, request: Request, get: object) -> str:
    assert callable(get)
    decision = evaluator.evaluate(request, Facts(get))
    assert not isinstance(decision, Lacking)
    assert isinstance(decision, Decision)
    assert decision.action is not None
    said = encode_reply(decision.action)[7:-2].decode()
    verb = said.partition(" ")[0].upper()
    assert verb not in ("OK", "RELAY")
    assert not verb.isdigit() or len(verb) == 3
    return verb[:12]


TARGETS = (
    Target(
        "list",
        restriction_list,
        growths(
            ("", "permit, ", ""),
            ("", "{", ""),
            ("", "{a}", ""),
            ("", "check_sender_access static:x ", ""),
            ("", " ", "permit"),
            ("permit", "x", ""),
        ),
    ),
    Target(
        "rhs",
        right_hand_side,
        growths(("", "permit ", ""), ("REJECT", " ", "x"), ("550 ", "5.7.1 ", ""), ("", "a", "")),
    ),
    Target(
        "table",
        table,
        growths(("", "10.0.0.0/8 OK\n", ""), ('"', "a ", '" OK'), ("a", "\\\\", " OK"), ("a ", "OK\n", "")),
    ),
    Target(
        "inline",
        inline,
        growths(
            ("{", "a=b,", "}"),
            ("{{", "a ", "=b}}"),
            ("{", "\\a", "=b}"),
            ('{{"', "a", '" = b}}'),
            ("{{", " ", "a=b}}"),
            ("{{a=", " ", "b}}"),
            ("{{a=", " ", "}}"),
            ("{", "{", "}"),
            ("{", '"a"', "=b}"),
        ),
    ),
    Target(
        "address",
        addresses,
        growths(
            ("x@", "a.", "example"),
            ("", "%b", "@b"),
            ("", "b!", "x@b"),
            ('"', '\\"', '"@b'),
            ("", "(", "@b"),
            ("", "@b", ""),
            ("", "+", "@b"),
            ("x@", "\u0130", ""),
            ("x@", "\u3002", ""),
            ("", ":", ""),
            ("", "1.", "1"),
        ),
    ),
    Target(
        "policies",
        policies,
        growths(
            (
                "dn: cn=d,ou=policy,dc=x\nobjectClass: smtpdPolicy\ncn: default\nsmtpdSenderRestrictions: ",
                "check_sender_access static:DUNNO, ",
                "reject\n",
            ),
        ),
    ),
)
