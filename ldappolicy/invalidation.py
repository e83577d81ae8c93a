"""Which of the answers that are remembered a change in the directory may make wrong: those, and no others.

An answer depends on the entries in it, and on those that could come into it:

* who has an address, a login or a domain: on every entry that has it or had it;
* the groups around an entry: on the groups that name it, on those that come to name it, and on itself;
* the groups that name an address as a member: on those, and on those that come to name it;
* what memberOf names: on that group, whose members' entries change with it where the server keeps memberOf;
* a list: on whom it names as allowed, denied, owner and so on, since servers amend it when they are renamed;
* what depends on a filter that is not ours (a memberURL, a smtpdAccessURL) or on groups at any depth: on
  whatever changes.

Kept is, for each DN, identity or value that something depends on, what does. What is not remembered any more
may still stand here; `Dependencies.size` says when it is time to begin anew.
"""

from collections.abc import Iterable, Iterator

from ldappolicy import facts
from ldappolicy.directory.changes import Members, entry_uuid
from ldappolicy.entry import Entry, key_of_dn, without_uid
from ldappolicy.facts import Lookup
from ldappolicy.mapping import Mapping, addresses_in

# What answers depend on besides DNs and identities; no DN begins with a blank.
_LOGIN, _UID, _DYNAMIC, _CARRYING, _FILTER = " login ", " uid ", " dynamic", " carrying", " filter"
_ADDRESSED = " addressed "


class Dependencies:
    """What the answers that are remembered depend on, for one mapping."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._dependent: dict[str, set[Lookup]] = {}
        self.size = 0

    def add(self, lookup: Lookup, entries: Iterable[Entry]) -> None:
        """An answer is remembered."""
        for tag in (*_own_tags(lookup), *(tag for entry in entries for tag in self._tags_of(entry))):
            dependent = self._dependent.setdefault(tag, set())
            self.size -= len(dependent)
            dependent.add(lookup)
            self.size += len(dependent)

    def clear(self) -> None:
        """Nothing is remembered."""
        self._dependent.clear()
        self.size = 0

    def on(self, tag: str) -> frozenset[Lookup]:
        """What depends on a DN or an identity."""
        return frozenset(self._dependent.get(tag, ()))

    def touched(
        self, before: Entry | None, after: Entry | None, members: Members | None = None, uuid: str = ""
    ) -> set[Lookup]:
        """The lookups whose answers a change may make wrong; `before` is None where it is not known.

        They are dropped here. `members`: the entries are without their members, of which these came and went.
        """
        tags = {_FILTER, uuid}
        lookups: set[Lookup] = set()
        for entry in (before, after):
            if entry is not None:
                tags |= {entry.key, entry_uuid(entry), *self._values(entry)}
                lookups |= self._who_has(entry)
        tags |= {*self._members_touched(before, after, members), *self._addresses_touched(before, after)}
        for tag in tags:
            dependent = self._dependent.pop(tag, ())
            self.size -= len(dependent)
            lookups.update(dependent)
        return lookups

    def _tags_of(self, entry: Entry) -> Iterator[str]:
        """An entry of an answer: it, and the groups that it names."""
        yield entry.key
        if uuid := entry_uuid(entry):
            yield uuid
        for name in (*self._mapping.member_of, *self._mapping.links):
            yield from map(key_of_dn, entry.values(name))

    def _values(self, entry: Entry) -> Iterator[str]:
        """What somebody may have asked for under several spellings, or all at once."""
        for name in self._mapping.login:
            for value in entry.values(name):
                yield _LOGIN + value.strip(" ").casefold()
        if entry.values("memberURL"):
            yield _DYNAMIC
        if any(entry.values(name) for name in self._mapping.member_access):
            yield _CARRYING

    def _who_has(self, entry: Entry) -> set[Lookup]:
        mapping = self._mapping
        domains = (value.strip(" ").casefold() for name in mapping.domain for value in entry.values(name))
        return {
            *map(facts.mail, mapping.addresses_of(entry)),
            *map(facts.domain, domains),
            *map(facts.sid, entry.values("objectSid")),
        }

    def _members_touched(
        self, before: Entry | None, after: Entry | None, members: Members | None
    ) -> Iterator[str]:
        """Those who are in a group now and were not, or were and are not."""
        if members is not None:
            yield from map(key_of_dn, (*members.added, *members.removed))
            return
        for names, tag in ((self._mapping.member_dns, _member_key), (self._mapping.member_logins, _uid)):
            then, now = (_values_of(entry, names) for entry in (before, after))
            yield from map(tag, then ^ now)

    def _addresses_touched(self, before: Entry | None, after: Entry | None) -> Iterator[str]:
        """The addresses that are members now and were not, or were and are not."""
        for name in self._mapping.member_address:
            then, now = (_values_of(entry, (name,)) for entry in (before, after))
            differing = Entry("", {name: then ^ now})
            yield from (_ADDRESSED + address for address in addresses_in(differing, name))


def _own_tags(lookup: Lookup) -> Iterator[str]:
    match lookup:
        case ("login", name, *_):
            yield _LOGIN + name
        case ("groups", dn, *logins):
            yield key_of_dn(dn)
            yield from map(_uid, logins)
        case ("addressed", address):
            yield _ADDRESSED + address
        case ("entry", dn):
            yield key_of_dn(dn)
        case ("dynamic",):
            yield _DYNAMIC
        case ("carrying",):
            yield _CARRYING
        case ("match" | "chain", dn, _):
            yield key_of_dn(dn)
            yield _FILTER
        case ("url", _, _):
            yield _FILTER


def _values_of(entry: Entry | None, names: Iterable[str]) -> set[str]:
    return set() if entry is None else {value for name in names for value in entry.values(name)}


def _member_key(value: str) -> str:
    return key_of_dn(without_uid(value))


def _uid(login: str) -> str:
    return _UID + login.casefold()
