"""A generated company: users, lists, groups within groups, one large list; and the right answers.

Everything follows from the numbers, so that a tree of any size and a question about it are made without a
file between them. `records` are LDIF in the terms of a family of servers.

* Every tenth user may write to local domains only.
* Each list takes mail from its 20 members; `all` from its `large` members.
* Two users are in the group `branch`, which the list `nested1` holds.
* `level1` holds `level2`, and so on; the last two users are in the last level, the list `nestedN` holds the
  first: its members are N levels away.
* The list `allowed` takes mail from whoever is in `branch`, by smtpdAllowedSenderDN.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ldappolicy.ldif import format_record
from tests.labs.slapd import SUFFIX

DOMAIN = "corp.example"
ELSEWHERE = "someone@elsewhere.example"
PARTNER = "partner.example"
LIST_SIZE = 20
Attributes = dict[str, str | list[str]]
PERMITTED, REJECTED = "dunno", "reject"

CLASSES = {
    "local_only": "check_recipient_access ldap:local_domains, reject",
    "members": "check_sender_access recipient:members, reject",
    "allowed": "check_sender_access recipient:allowed, reject",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the right answer; `twin` is another sender in the same groups."""

    what: str
    sender: str
    recipient: str
    answer: str
    twin: str = ""


@dataclass(frozen=True, slots=True)
class Company:
    """How large it is; `profile` is that of the configuration."""

    users: int
    lists: int
    large: int
    depth: int = 10
    profile: str = "openldap"

    @property
    def is_ad(self) -> bool:
        """Whether entries are Active Directory's."""
        return self.profile == "active_directory"

    # ------------------------------------------------------------ names

    def user_dn(self, number: int) -> str:
        """The DN of a user."""
        return f"{'CN' if self.is_ad else 'uid'}=user{number},ou=people,{SUFFIX}"

    def group_dn(self, name: str) -> str:
        """The DN of a list or group."""
        return f"cn={name},ou=lists,{SUFFIX}"

    def address(self, name: str) -> str:
        """The address of a user or list."""
        return f"{name}@{DOMAIN}"

    @property
    def outsider(self) -> int:
        """A user in no list but those that take everybody."""
        return self.users - 3

    # ------------------------------------------------------------ questions

    def questions(self) -> list[Question]:
        """One for each kind of decision."""
        n, deep = self.users, f"nested{self.depth}"
        out, inside, branch = (n - 3, n - 4), (0, 2), (n - 5, n - 6)
        rows: list[tuple[str, tuple[int, int] | None, str, str]] = [
            ("unknown sender to a user", None, "user5", PERMITTED),
            ("unknown sender to a list", None, "list0", REJECTED),
            ("restricted user to a local domain", (1, 11), "user5", PERMITTED),
            ("restricted user to elsewhere", (1, 11), ELSEWHERE, REJECTED),
            (f"member of a list of {LIST_SIZE}", inside, "list0", PERMITTED),
            (f"no member of a list of {LIST_SIZE}", out, "list0", REJECTED),
            (f"member of a list of {self.large:,}", inside, "all", PERMITTED),
            (f"no member of a list of {self.large:,}", out, "all", REJECTED),
            ("member of a group in the list (depth 1)", branch, "nested1", PERMITTED),
            (f"member at depth {self.depth}", (n - 1, n - 2), deep, PERMITTED),
            (f"no member of the list with depth {self.depth}", out, deep, REJECTED),
            ("allowed by a group's DN", branch, "allowed", PERMITTED),
            ("not allowed by a group's DN", out, "allowed", REJECTED),
        ]
        return [self._question(*row) for row in rows]

    def _question(self, what: str, pair: tuple[int, int] | None, recipient: str, answer: str) -> Question:
        if pair is None:
            senders = ELSEWHERE, f"other-{ELSEWHERE}"
        else:
            senders = self.address(f"user{pair[0]}"), self.address(f"user{pair[1]}")
        return Question(what, senders[0], self._full(recipient), answer, senders[1])

    def _full(self, name: str) -> str:
        return name if "@" in name else self.address(name)

    def arrivals(self, count: int, start: int = 0) -> list[Question]:
        """Distinct senders, spread over all users, to lists that some of them are members of."""
        step = max(1, self.users // count) | 1
        numbers = ((start + n) * step % self.users for n in range(count))
        return [self._arrival(number) for number in numbers]

    def _arrival(self, number: int) -> Question:
        own = number // LIST_SIZE
        is_member = own < self.lists and number % 2 == 0
        where = own if is_member else (own + 1 + number % 7) % self.lists
        answer = PERMITTED if is_member or where == own else REJECTED
        return Question("arrival", self.address(f"user{number}"), self.address(f"list{where}"), answer)

    # ------------------------------------------------------------ entries

    def ldif(self) -> Iterator[str]:
        """The whole tree, a record at a time."""
        for dn, attributes in self.records():
            values = ((name, [v] if isinstance(v, str) else v) for name, v in attributes.items())
            yield format_record(dn, values) + "\n"

    def records(self) -> Iterator[tuple[str, Attributes]]:
        """DN and attributes, what others name before those who name it."""
        if not self.is_ad:
            yield SUFFIX, {"objectClass": "domain", "dc": "example"}
        for unit in ("people", "lists", "policy"):
            yield f"ou={unit},{SUFFIX}", {"objectClass": "organizationalUnit", "ou": unit}
        yield from self._policy(f"ou=policy,{SUFFIX}")
        for number in range(self.users):
            yield self.user_dn(number), self._user(number)
        yield from self._groups()

    def _policy(self, base: str) -> Iterator[tuple[str, Attributes]]:
        yield (
            f"cn=default,{base}",
            {
                "objectClass": "smtpdPolicy",
                "cn": "default",
                "smtpdSenderRestrictions": "check_sender_access directory:access",
                "smtpdRecipientRestrictions": "check_recipient_access directory:access",
                "smtpdLocalDomains": "ldap:local_domains",
            },
        )
        table: Attributes = {"objectClass": "smtpdAccessTable", "cn": "local_domains"}
        yield f"cn=local_domains,{base}", {**table, "smtpdAccess": f"{DOMAIN} OK"}
        for name, body in CLASSES.items():
            entry: Attributes = {"objectClass": "smtpdRestrictionClass", "cn": name}
            yield f"cn={name},{base}", {**entry, "smtpdRestrictions": body}

    def _user(self, number: int) -> Attributes:
        name = f"user{number}"
        access: Attributes = {"smtpdSenderAccess": "local_only"} if number % 10 == 1 else {}
        if self.is_ad:
            account: Attributes = {"sAMAccountName": name, "userAccountControl": "544"}
            return {"objectClass": "user", **account, "mail": self.address(name), **access}
        classes = ["inetOrgPerson", "smtpdAccessControl"]
        names: Attributes = {"objectClass": classes, "uid": name, "cn": name, "sn": name}
        return {**names, "mail": self.address(name), **access}

    def _groups(self) -> Iterator[tuple[str, Attributes]]:
        last = [self.user_dn(self.users - 1), self.user_dn(self.users - 2)]
        for level in range(self.depth, 0, -1):
            yield self._group(f"level{level}", last)
            last = [self.group_dn(f"level{level}")]
        branch = self.group_dn("branch")
        yield self._group("branch", [self.user_dn(self.users - 5), self.user_dn(self.users - 6)])
        yield self._list("nested1", [branch], "members")
        yield self._list(f"nested{self.depth}", last, "members")
        yield self._list("allowed", [self.user_dn(0)], "allowed", smtpdAllowedSenderDN=branch)
        yield self._list("all", [self.user_dn(number) for number in range(self.large)], "members")
        for number in range(self.lists):
            first = number * LIST_SIZE
            members = [self.user_dn((first + n) % self.users) for n in range(LIST_SIZE)]
            yield self._list(f"list{number}", members, "members")

    def _group(self, name: str, members: list[str], **more: str) -> tuple[str, Attributes]:
        if self.is_ad:
            names: Attributes = {"objectClass": "group", "sAMAccountName": name}
        else:
            names = {"objectClass": ["groupOfNames", "smtpdAccessControl"], "cn": name}
        return self.group_dn(name), {**names, "member": members, **more}

    def _list(self, name: str, members: list[str], access: str, **more: str) -> tuple[str, Attributes]:
        return self._group(name, members, mail=self.address(name), smtpdRecipientAccess=access, **more)
