"""What is asked: SMTP transactions made from the keys of a main.cf's tables, and from their neighbours.

A neighbour is what almost is the key, and what the key almost is: an extension, another local part, a
sub-domain, a parent, a domain that ends alike without a dot between (`notexample.com`), upper case, a
trailing dot, the first and the last address of a network and those just outside (access(5), cidr_table(5)).

First each key is asked for once as it stands, among plain neighbours of everything else; then come passes in
which all parts of a transaction are drawn from everything that there is, each key in the middle of one
transaction a pass. The seed is a parameter, and the order depends on nothing else.

BUGS: keys of check_ccert_access are not asked for: XCLIENT knows no certificates.
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ldappolicy import vocabulary
from ldappolicy.action import split_list
from ldappolicy.address import is_host_address, is_hostname, quoted, unquoted
from ldappolicy.errors import InputError
from ldappolicy.importing import places
from ldappolicy.importing.sources import INDEXED, LeftOut, Notes, Source, cidr_rules, pairs, source_of
from ldappolicy.main_cf import MainCf, read_text
from ldappolicy.network import Network, parse_network
from ldappolicy.policy import PARAMETERS, parse_inline


@dataclass(frozen=True, slots=True)
class Client:
    """Who connects, as XCLIENT says it; a name that is empty is unknown."""

    name: str
    address: str
    reverse: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """One transaction. Without `helo` the client says none; `etrn` is asked for before MAIL."""

    client: Client
    helo: str | None
    login: str
    sender: str
    recipient: str
    etrn: str = ""

    def __str__(self) -> str:
        client = f"client={self.client.name or 'unknown'}[{self.client.address}]"
        more = {"reverse": self.client.reverse, "helo": self.helo, "login": self.login, "etrn": self.etrn}
        said = [f"{name}={value}" for name, value in more.items() if value]
        return " ".join((client, *said, f"sender=<{self.sender}>", f"recipient=<{self.recipient}>"))


@dataclass(frozen=True, slots=True)
class Key:
    """A key and what looks it up: sender, recipient, client, reverse_client, helo, sasl or etrn."""

    kind: str
    text: str


STRANGER = "stranger.example"
LISTED = Client("listed.stranger.example", "198.18.0.66", "listed.stranger.example")
"""A client that every DNS list has."""

_CLIENTS = (
    Client("mail.stranger.example", "198.18.0.77", "mail.stranger.example"),
    Client("", "198.18.0.78"),
    LISTED,
    Client("mail.stranger.example", "2001:2::77", "mail.stranger.example"),
)
_HELOS = ("mail.stranger.example", "mail.stranger.example", "nodot", "[198.18.0.77]", "bad_name!", None)
_PARTS = {"reverse_client": "client", "sasl": "login"}
_KINDS = frozenset(("sender", "recipient", "client", "reverse_client", "helo", "sasl", "etrn"))

_NAMED = re.compile(r"[\w.+=-]*[@.:][\w.:@/+=-]*|<>|unknown", re.ASCII)
_OCTETS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}")
_HEXTETS = re.compile(r"[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{0,4}){0,7}")


# ---------------------------------------------------------------- keys


def keys_of(main: MainCf) -> list[Key]:
    """Every key of every table that a list or class names, of mynetworks and of the domains, once."""
    notes = Notes()
    found = [Key(kind, text) for kind, text in _keys_of_tables(main, notes)]
    with suppress(LeftOut):
        networks = split_list(places.mynetworks(main, notes))
        found += [Key("client", pattern.lstrip("!")) for pattern in networks]
    with suppress(LeftOut):
        found += [Key("recipient", domain) for domain in places.local_domains(main, notes)]
    found += _keys_of_files(main)
    return list(dict.fromkeys(found))


def _keys_of_files(main: MainCf) -> Iterator[Key]:
    """What the files look as if they named, read without any grammar: also what the import does not see."""
    for kind, source in dict.fromkeys(_tables(main)):
        if source.type in (*INDEXED, "cidr"):
            yield from (Key(kind, words[0]) for words in _words(source.name))
    for parameter in ("mynetworks", *places.EXACT_DOMAINS, "relay_domains"):
        kind = "client" if parameter == "mynetworks" else "recipient"
        for token in main.get(parameter).replace(",", " ").split():
            if token.lstrip("!").startswith("/"):
                yield from (Key(kind, word) for words in _words(token.lstrip("!")) for word in words)


def _words(path: str) -> Iterator[list[str]]:
    """The words of each line of a file that look like an address, a name or a network."""
    try:
        text = read_text(Path(path)) if path.startswith("/") else ""
    except InputError:
        return
    for line in text.split("\n"):
        words = (word.strip("!#") for word in re.split(r"[\s,]+", line))
        found = [word for word in words if _NAMED.fullmatch(word)]
        if found:
            yield found


def can_be_asked(key: Key) -> bool:
    """Whether SMTP has a way to say it."""
    blanks = " " if key.kind in ("sender", "recipient", "sasl") else ""
    return key.text == "<>" or _can_be_said(key.text, blanks)


def _keys_of_tables(main: MainCf, notes: Notes) -> Iterator[tuple[str, str]]:
    for kind, source in dict.fromkeys(_tables(main)):
        try:
            yield from ((kind, key) for key in _keys(source, notes))
        except (LeftOut, InputError):
            continue  # what cannot be carried over is named by the import


def _tables(main: MainCf) -> Iterator[tuple[str, Source]]:
    """What is looked up where. A table that stands alone in a class may be any list's."""
    lists = {parameter: name for name, parameter in PARAMETERS.items()}
    classes = split_list(main.get("smtpd_restriction_classes"))
    for parameter in (*lists, *classes):
        default = vocabulary.DEFAULT_CHECKS.get(lists.get(parameter, ""))
        kinds = (default,) if default else ("sender", "recipient", "client", "helo")
        check = ""
        for token in split_list(main.get(parameter)):
            if ":" in token and not token.startswith("{"):
                source = source_of(token, main.where(parameter))
                yield from ((kind, source) for kind in ((check,) if check else kinds) if kind in _KINDS)
            check = vocabulary.CHECKS.get(token.lower(), "")


def _keys(source: Source, notes: Notes) -> Iterator[str]:
    if source.type in INDEXED:
        yield from (key for _, key, _ in pairs(source, notes))
    elif source.type == "cidr":
        for rule in cidr_rules(source, notes):
            yield from (str(network) for network in rule.networks)
    elif source.type == "inline":
        yield from parse_inline(source.name)


# ---------------------------------------------------------------- neighbours


def neighbours(key: Key, delimiter: str = "") -> tuple[str | Client, ...]:
    """What a transaction says to meet the key, first; then what is near it."""
    if key.kind in ("client", "reverse_client"):
        return tuple(dict.fromkeys(_clients(key.text, key.kind == "client"))) or _CLIENTS[:1]
    if key.kind in ("sender", "recipient"):
        made = _addresses(key.text, delimiter, key.kind == "sender")
        texts = [quoted(unquoted(address)) for address in made]
    elif key.kind == "sasl":
        texts = [key.text, key.text.upper(), f"{key.text}x", ""]
    else:
        texts = [*_names(key.text), f"[{key.text}]"] if is_host_address(key.text) else [*_names(key.text)]
    blanks = " " if key.kind in ("sender", "recipient", "sasl") else ""
    fine = [text for text in dict.fromkeys(texts) if _can_be_said(text, blanks)]
    return tuple(fine) or (_somebody(STRANGER),)


def _can_be_said(text: str, blanks: str) -> bool:
    """Whether it fits an SMTP command and XCLIENT as it is."""
    return text.isprintable() and len(text) < 200 and not set(text) & (set("<> ") - set(blanks))


def _somebody(domain: str) -> str:
    return f"somebody@{domain}"


def _names(name: str) -> Iterator[str]:
    """A domain or host name and those near it; `.name` is met by what is below."""
    bare = name.lstrip(".")
    if name.startswith("."):
        yield f"sub{name}"
    yield bare
    if is_host_address(bare) or bare.startswith("["):
        return
    yield from (f"sub.{bare}", f"not{bare}", bare.upper(), f"{bare}.", f"deep.sub.{bare}")
    parent = bare.partition(".")[2]
    if parent:
        yield parent


def _addresses(key: str, delimiter: str, is_sender: bool) -> Iterator[str]:
    """Addresses that the key of an address table is found for, and those near it."""
    if key == "<>":
        yield from ("", _somebody(STRANGER)) if is_sender else (_somebody(STRANGER),)
        return
    local, at, domain = key.rpartition("@")
    extended = [f"{local}{mark}ext" for mark in delimiter[:1]]
    if not at:
        yield from map(_somebody, _names(key))
    elif not domain:
        yield from (f"{one}@{STRANGER}" for one in (local, *extended, f"{local}x", local.upper()))
        yield local
    else:
        yield from (f"{one}@{domain}" for one in (local, *extended, f"{local}x", local.upper()))
        yield from (f"{local}@{name}" for name in _names(domain))
        yield _somebody(domain)
        yield local
    if is_sender:
        yield ""


def _clients(key: str, by_address: bool) -> Iterator[Client]:
    """Clients that the key is found for, and those near it."""
    network = _network(key)
    if by_address and network is not None:
        yield from (_at(address) for address in _around(network))
    elif by_address and _OCTETS.fullmatch(key) is None and ":" in key and _HEXTETS.fullmatch(key):
        inside = (f"{key.rstrip(':')}::1", f"{key.rstrip(':')}:5::1", f"{key.rstrip(':')}5::1", f"{key}:1")
        yield from (_at(address) for address in inside if is_host_address(address))
    elif key.casefold() == "unknown":
        yield from (_CLIENTS[1], Client("", "198.18.0.79", "ptr.stranger.example"))
    else:
        for name in _names(key):
            if is_hostname(name):
                yield Client(name if by_address else "", "198.18.0.80", name)
                yield Client("" if by_address else name, "198.18.0.80", name if by_address else "")


def _at(address: str) -> Client:
    return Client("mail.stranger.example", address, "mail.stranger.example")


def _network(key: str) -> Network | None:
    """A network of cidr(5), an address, or the octets that access(5) cuts one to."""
    octets = key.split(".")
    if _OCTETS.fullmatch(key):
        key = ".".join(octets + ["0"] * (4 - len(octets))) + f"/{8 * len(octets)}"
    try:
        return parse_network(key)
    except InputError:
        return None


def _around(network: Network) -> Iterator[str]:
    """The first and last address, and those just outside."""
    first, last = int(network.network_address), int(network.broadcast_address)
    make = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    for number in (first, last, first - 1, last + 1, (first + last) // 2):
        if 0 <= number < 2**network.max_prefixlen and is_host_address(str(make(number))):
            yield str(make(number))


# ---------------------------------------------------------------- questions


def questions(keys: Sequence[Key], delimiter: str, seed: int) -> Iterator[Question]:
    """Without end: every key once as it stands, then pass after pass with everything near everything."""
    draw = _Draw(keys, delimiter, Random(seed))  # noqa: S311 - not for secrets
    turn = 0
    while True:
        for key in draw.shuffled():
            near = neighbours(key, delimiter)
            given = {_PARTS.get(key.kind, key.kind): near[turn % len(near)]}
            yield draw.question(given, plain=turn == 0)
        turn += 1


class _Draw:
    """What parts of a transaction are drawn from."""

    def __init__(self, keys: Sequence[Key], delimiter: str, random: Random) -> None:
        self._keys = list(keys) or [Key("recipient", STRANGER)]
        self._delimiter = delimiter
        self._random = random
        self._plain = _plain(self._keys)
        self._of: dict[str, list[Key]] = {}
        for key in self._keys:
            self._of.setdefault(_PARTS.get(key.kind, key.kind), []).append(key)

    def shuffled(self) -> list[Key]:
        """The keys of one pass."""
        return self._random.sample(self._keys, len(self._keys))

    def question(self, given: Mapping[str, object], *, plain: bool) -> Question:
        """A transaction around what is given; `plain`: nothing else in it was made from a key."""
        parts = {name: self._part(name, plain) for name in ("client", "helo", "login", "sender", "recipient")}
        if "etrn" in self._of and self._random.random() < 0.3:
            parts["etrn"] = self._part("etrn", plain)
        return Question(**{**parts, **given})  # type: ignore[arg-type]

    def _part(self, name: str, plain: bool) -> object:
        known = self._of.get(name)
        if plain or known is None or self._random.random() < 0.4:
            return self._random.choice(self._plain[name])
        near = neighbours(self._random.choice(known), self._delimiter)
        return near[0] if self._random.random() < 0.5 else self._random.choice(near)


def _plain(keys: Iterable[Key]) -> Mapping[str, Sequence[object]]:
    """What is said where nothing is to be met; somebody of ours is the commonest recipient."""
    domains = [key.text for key in keys if key.kind == "recipient" and is_hostname(key.text)]
    ours = [_somebody(domain) for domain in domains[:1]] * 4
    return {
        "client": _CLIENTS,
        "helo": _HELOS,
        "login": ("", "", "", "somebody"),
        "sender": (_somebody(STRANGER), _somebody("mail.stranger.example"), _somebody("elsewhere.example")),
        "recipient": (*ours, _somebody("elsewhere.example")),
        "etrn": ("", STRANGER),
    }
