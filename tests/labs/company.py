"""One small company in every kind of directory: the same people, lists, groups and domains.

    with WORLDS["389ds"].open() as world:
        with Ldappolicy(world.sections) as service: ...
        world.change("team", members=("amy",))      # as an administrator would, in the running directory
        world.kill(), world.start()                 # where there is a server

Each world says how its directory writes a person, a group and a domain down, and which profile reads
that. A change is what differs between the lines of before and after: `replace` over LDAP, the whole file
where the directory is one.
"""

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.ldappolicy import Sections
from tests.labs.samba import Samba, needs_samba
from tests.labs.server import Server, folder, tree_of
from tests.labs.slapd import STORED, SUFFIX, Slapd

SCHEMA = Path(__file__).parents[2] / "schema"
POLICY_BASE = f"ou=policy,{SUFFIX}"
CROWD = 2000

Line = tuple[str, str]
Names = tuple[str, ...]


@dataclass(frozen=True)
class Thing:
    """A person, a group (a list is one with an address) or a domain; DNs are names of things.

    `says` holds our attributes with one value each; `login` is a person's, the name if not said.
    """

    kind: str
    name: str
    addresses: Names = ()
    members: Names = ()
    owner: str = ""
    says: dict[str, str] = field(default_factory=dict)
    allowed: Names = ()
    allowed_dn: Names = ()
    denied: Names = ()
    denied_dn: Names = ()
    moderators: Names = ()


def person(name: str, *addresses: str, **more: Any) -> Thing:
    """Somebody who logs in with that name."""
    return Thing("person", name, addresses or (f"{name}@my.domain",), **more)


def group(name: str, *members: str, **more: Any) -> Thing:
    """A group without an address."""
    return Thing("group", name, (), members, **more)


def mailing_list(name: str, *members: str, **more: Any) -> Thing:
    """A group with one."""
    return Thing("group", name, (f"{name}@my.domain",), members, **more)


def takes(restrictions: str) -> dict[str, str]:
    """Who may send to it."""
    return {"smtpdRecipientAccess": restrictions}


# Shut are those for owners that have none.
COMPANY = (
    person("amy", "amy@my.domain", "amy.ander@my.domain", says={"smtpdSenderAccess": "local_only"}),
    person("bob"),
    person("carol"),
    person("dan"),
    person("erin"),
    person("gina"),
    person("jane", "jane@my.domain", "jane.roe@my.domain", says=takes("owners_only")),
    person("mia", "mia@my.domain", "mia@other.example"),
    person("ned"),
    person("pat", "pat@partner.example"),
    person("eve", "eve@partner.example"),
    person("zoe", "o'brien@my.domain"),
    # Who may send: bob by his group, carol by the group around hers, dan again by one of lower number.
    group("contractors", "carol"),
    group("restricted", "bob", "contractors", "dan",
          says={"smtpdMemberSenderAccess": "local_only", "smtpdPriority": "20"}),
    group("offsite", "dan", says={"smtpdMemberSenderAccess": "external_allowed", "smtpdPriority": "10"}),
    group("managers", "mia", "ned"),
    # Three levels, and back to the first.
    mailing_list("team", "amy", "inner", says=takes("members_only")),
    group("inner", "bob", "innermost"),
    group("innermost", "carol", "team"),
    mailing_list("crowd", "dan", *(f"crowd{n}" for n in range(CROWD - 1)), says=takes("members_only")),
    mailing_list("club", "managers", "zoe", says=takes("members_only_by_envelope")),
    mailing_list("board", "ned", owner="mia", says=takes("owners_only")),
    mailing_list("announce", "amy", moderators=("gina",), says=takes("moderated")),
    mailing_list("press", "amy", says=takes("allowed_only"),
                 allowed=("partner.example", "news@my.domain"), allowed_dn=("managers", "team"),
                 denied=("eve@partner.example",), denied_dn=("ned", "contractors")),
    mailing_list("quiet", "erin", says=takes("owners_only")),
    Thing("domain", "other.example"),
    Thing("domain", "closed.example", says=takes("owners_only")),
)  # fmt: skip

POLICY = f"""\
dn: ou=tables,{POLICY_BASE}
objectClass: organizationalUnit
ou: tables

dn: cn=local_domains,ou=tables,{POLICY_BASE}
objectClass: smtpdAccessTable
cn: local_domains
smtpdAccess: my.domain OK
smtpdAccess: other.example OK

dn: cn=default,{POLICY_BASE}
objectClass: smtpdPolicy
cn: default
smtpdSenderRestrictions: check_sasl_access directory:access, check_sender_access directory:access
smtpdRecipientRestrictions: check_recipient_access directory:access
smtpdMyorigin: my.domain
smtpdLocalDomains: ldap:local_domains
smtpdRecipientDelimiter: +
"""


class World(ABC):
    """The company in one kind of directory."""

    profile: ClassVar[str]
    is_served: ClassVar[bool] = True
    """Whether there is a server that can be stopped."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.things = {thing.name: thing for thing in COMPANY}

    @property
    def sections(self) -> Sections:
        """The configuration that reads it."""
        directory: dict[str, str | int | bool | list[str]] = {"uri": [self.uri], "profile": self.profile}
        return {"directory": directory | self.identity()}

    def identity(self) -> dict[str, str | int | bool | list[str]]:
        """How to bind, where nobody reads without."""
        return {}

    # ------------------------------------------------------------ how it is written down

    @abstractmethod
    def dn(self, name: str) -> str:
        """Where a thing is, or somebody of the crowd who is named only."""

    @abstractmethod
    def lines(self, thing: Thing) -> Iterator[Line]:
        """A thing's attributes, object classes first."""

    @abstractmethod
    def tree(self) -> str:
        """What all entries are below."""

    def own(self, thing: Thing) -> Iterator[Line]:
        """What our attributes say of a thing."""
        yield from thing.says.items()
        yield from (("smtpdAllowedSender", key) for key in thing.allowed)
        yield from (("smtpdDeniedSender", key) for key in thing.denied)
        for attribute, names in (
            ("smtpdAllowedSenderDN", thing.allowed_dn),
            ("smtpdDeniedSenderDN", thing.denied_dn),
            ("smtpdModerator", thing.moderators),
        ):
            yield from ((attribute, self.dn(name)) for name in names)

    def entry(self, thing: Thing) -> str:
        """A thing as an LDIF record."""
        return "\n".join(
            (f"dn: {self.dn(thing.name)}", *(f"{name}: {text}" for name, text in self.lines(thing)), "\n")
        )

    def ldif(self) -> str:
        """All of it, members after those that they are."""
        return self.tree() + "".join(self.entry(thing) for thing in self.things.values())

    # ------------------------------------------------------------ what happens to it

    def change(self, name: str, **attributes: Any) -> None:
        """Make a thing other than it is."""
        before = self.things[name]
        after = self.things[name] = replace(before, **attributes)
        self.modify(self.dn(name), list(self.lines(before)), list(self.lines(after)))

    @abstractmethod
    def modify(self, dn: str, before: list[Line], after: list[Line]) -> None:
        """Bring a difference into the directory."""

    def kill(self) -> None:
        """End the server without a goodbye."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it again."""
        raise NotImplementedError

    def suspend(self) -> None:
        """It says nothing more."""
        raise NotImplementedError

    def resume(self) -> None:
        """After `suspend`."""
        raise NotImplementedError


class Served(World):
    """In a server."""

    def __init__(self, server: Server | Slapd, uri: str) -> None:
        super().__init__(uri)
        self.server = server

    def modify(self, dn: str, before: list[Line], after: list[Line]) -> None:
        """One modify request, all or nothing."""
        lines = [f"dn: {dn}", "changetype: modify", *replacements(before, after), ""]
        self.server.load("\n".join(lines))

    def kill(self) -> None:
        """As the lab does."""
        self.server.kill()

    def start(self) -> None:
        """As the lab does."""
        self.server.start()

    def suspend(self) -> None:
        """As the lab does."""
        self.server.suspend()

    def resume(self) -> None:
        """As the lab does."""
        self.server.resume()


class Inet(World):
    """Of inetOrgPerson and groupOfNames, as RFC 2798 and RFC 4519 have them."""

    alias: ClassVar[Line] = ("inetLocalMailRecipient", "mailLocalAddress")

    def dn(self, name: str) -> str:
        """By uid, by cn, by ou."""
        thing = self.things.get(name)
        if thing is None or thing.kind == "person":
            return f"uid={name},ou=people,{SUFFIX}"
        return f"cn={name},ou=lists,{SUFFIX}" if thing.kind == "group" else f"ou={name},ou=domains,{SUFFIX}"

    def tree(self) -> str:
        """The suffix, and a folder for each kind."""
        return tree_of("people", "lists", "domains")

    def lines(self, thing: Thing) -> Iterator[Line]:
        """The structural class of its kind, and ours."""
        yield "objectClass", "smtpdAccessControl"
        yield from getattr(self, f"_{thing.kind}")(thing)
        yield from self.own(thing)

    def _person(self, thing: Thing) -> Iterator[Line]:
        yield "objectClass", "inetOrgPerson"
        yield "objectClass", self.alias[0]
        yield from ((name, thing.name) for name in ("uid", "cn", "sn"))
        yield "mail", thing.addresses[0]
        yield from ((self.alias[1], address) for address in thing.addresses[1:])

    def _group(self, thing: Thing) -> Iterator[Line]:
        yield "objectClass", "groupOfNames"
        yield "cn", thing.name
        yield from (("mail", address) for address in thing.addresses)
        yield from (("member", self.dn(name)) for name in thing.members)
        yield from [("owner", self.dn(thing.owner))] * bool(thing.owner)

    def _domain(self, thing: Thing) -> Iterator[Line]:
        yield "objectClass", "organizationalUnit"
        yield "objectClass", "domainRelatedObject"
        yield "ou", thing.name
        yield "associatedDomain", thing.name


class OpenLdap(Served, Inet):
    """Slapd, with memberOf, referential integrity and syncprov."""

    profile = "openldap"

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[World]:
        """A server with the company."""
        with Slapd(schema="ldappolicy", overlays=STORED) as server:
            world = cls(server, server.uri)
            server.load(world.ldif() + policy())
            yield world


class Ds389(Served, Inet):
    """389-ds, with memberOf and content synchronization."""

    profile = "389ds"
    alias = ("mailRecipient", "mailAlternateAddress")

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[World]:
        """A server with the company."""
        with DS389(schema="ldappolicy", content_sync=True) as server:
            world = cls(server, server.uri)
            server.load(world.ldif() + policy())
            yield world


class Ldif(Inet):
    """A file, read again when it has changed."""

    profile = "generic"
    is_served = False

    def __init__(self, path: Path) -> None:
        super().__init__(f"ldif:{path}")
        self.path = path

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[World]:
        """A file with the company."""
        with tempfile.TemporaryDirectory(prefix="ldif-") as folder_name:
            world = cls(Path(folder_name) / "tree.ldif")
            world.modify("", [], [])
            yield world

    def modify(self, dn: str, before: list[Line], after: list[Line]) -> None:
        """The whole file anew, put in the old one's place."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(self.ldif() + policy(), "utf-8")
        fresh.replace(self.path)


class ActiveDirectory(Served):
    """Samba's domain controller."""

    profile = "active_directory"

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[World]:
        """A domain with the company; those of the crowd are there, for a group names nobody who is not."""
        server = Samba(schema="ldappolicy")
        world = cls(server, server.uri)
        server.data = world.tree() + world.crowd() + world.company() + policy()
        with server:
            (server.home / "password").write_text(server.root_pw, "utf-8")
            yield world

    def identity(self) -> dict[str, str | int | bool | list[str]]:
        """Nobody reads without a bind."""
        return {
            "bind": "simple",
            "bind_dn": self.server.root_dn,
            "bind_pw_file": str(self._password_file),
        }

    @property
    def _password_file(self) -> Path:
        assert isinstance(self.server, Samba)
        return self.server.home / "password"

    def dn(self, name: str) -> str:
        """By cn, or ou."""
        thing = self.things.get(name)
        if thing is None or thing.kind == "person":
            return f"CN={name},OU=people,{SUFFIX}"
        return f"CN={name},OU=lists,{SUFFIX}" if thing.kind == "group" else f"OU={name},OU=domains,{SUFFIX}"

    def tree(self) -> str:
        """A folder for each kind; the suffix is there."""
        return "".join(folder(name) for name in ("people", "lists", "domains"))

    def crowd(self) -> str:
        """Contacts."""
        named = (name for name in self.things["crowd"].members if name not in self.things)
        return "".join(f"dn: {self.dn(name)}\nobjectClass: contact\n\n" for name in named)

    def company(self) -> str:
        """People first, then empty groups, then what names others: the server knows who is there."""
        bare = [
            replace(one, members=(), owner="", allowed_dn=(), denied_dn=(), moderators=())
            for one in self.things.values()
        ]
        text = "".join(self.entry(thing) for thing in bare)
        for thing, before in zip(self.things.values(), bare, strict=True):
            changes = list(replacements(list(self.lines(before)), list(self.lines(thing))))
            if changes:
                text += "\n".join((f"dn: {self.dn(thing.name)}", "changetype: modify", *changes, "\n"))
        return text

    def lines(self, thing: Thing) -> Iterator[Line]:
        """A user, a group or an organizational unit."""
        if thing.kind == "domain":
            yield from [("objectClass", "organizationalUnit"), ("objectClass", "domainRelatedObject")]
            yield from [("ou", thing.name), ("associatedDomain", thing.name)]
        else:
            yield "objectClass", "user" if thing.kind == "person" else "group"
            yield "sAMAccountName", thing.name
            if thing.kind == "person":
                yield "userPrincipalName", f"{thing.name}@corp.example"
                yield "userAccountControl", "544"  # enabled, and no password is required
            yield from (("mail", address) for address in thing.addresses[:1])
            for number, address in enumerate(thing.addresses):
                yield "proxyAddresses", ("smtp:" if number else "SMTP:") + address
        yield from (("member", self.dn(name)) for name in thing.members)
        yield from [("managedBy", self.dn(thing.owner))] * bool(thing.owner)
        yield from self.own(thing)


def replacements(before: list[Line], after: list[Line]) -> Iterator[str]:
    """What makes the lines of before those of after."""
    for name in dict.fromkeys(name for name, _ in before + after):
        values = [text for other, text in after if other == name]
        if values != [text for other, text in before if other == name]:
            yield from (f"replace: {name}", *(f"{name}: {text}" for text in values), "-")


def policy() -> str:
    """The shipped classes and the company's own policy."""
    return (SCHEMA / "classes.ldif").read_text("utf-8").rstrip() + "\n\n" + POLICY


WORLDS: dict[str, type[OpenLdap] | type[Ds389] | type[ActiveDirectory] | type[Ldif]] = {
    "slapd": OpenLdap,
    "389ds": Ds389,
    "samba": ActiveDirectory,
    "ldif": Ldif,
}
MARKS = {"slapd": (), "389ds": (needs_389ds,), "samba": (needs_samba,), "ldif": ()}
