"""Whether the new content of an LDIF file may take the place of the one in force.

A file that is written in place can be read when half of it is there, and nothing in LDIF says so: every list
in the missing half would be open. What is lost is taken for not written yet, unless the last line is
`# end`, which nothing can stand behind, or somebody says so (`is_accepted`: SIGHUP). Raises ConfigError.

BUGS: a file without the mark that is cut between two entries, of which the missing ones are new, few or
without rules, cannot be told from a whole one; nor can any such file at the first start.
"""

from collections.abc import Iterable

from ldappolicy.directory.ldif import Extent, LdifDirectory
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError
from ldappolicy.mapping import Mapping
from ldappolicy.policy import object_kind

_TO_ACCEPT = "expected a last line '# end', or SIGHUP, to accept that"


def extent(directory: LdifDirectory, mapping: Mapping) -> Extent:
    """That of a directory; it looks at every entry."""
    rules = sum(carries_rule(entry, mapping) for entry in directory)
    return Extent(directory.is_marked, len(directory), rules)


def carries_rule(entry: Entry, mapping: Mapping) -> bool:
    """Whether something is refused or allowed by what an entry carries."""
    return entry.has_any(mapping.rules) or bool(object_kind(entry))


def refuse_less(new: Extent, held: Extent, path: str, *, is_accepted: bool) -> None:
    """Refuses content that has less than other processes have in force."""
    _refuse_lost_mark(new.is_marked, held.is_marked, path)
    if is_accepted or new.is_marked:
        return
    _refuse_half(held.entries - new.entries, held.entries, path)
    if new.rules < held.rules:
        lost = held.rules - new.rules
        raise ConfigError(f"{path}: {lost} of {held.rules} entries with a rule are gone, {_TO_ACCEPT}")


def refuse_loss(
    new: LdifDirectory, old: LdifDirectory, mapping: Mapping, path: str, *, is_accepted: bool
) -> None:
    """Refuses content that lost too much of what is in force."""
    _refuse_lost_mark(new.is_marked, old.is_marked, path)
    if is_accepted or new.is_marked:
        return
    lost = [entry for entry in old if entry.key not in new]
    _refuse_half(len(lost), len(old), path)
    if (ruled := next((entry for entry in lost if carries_rule(entry, mapping)), None)) is not None:
        raise ConfigError(f"{path}: {ruled.dn!r}, which carried a rule, is gone, {_TO_ACCEPT}")
    last = _last(new)
    if last is not None and new.file == old.file and _is_beginning(last, old.get(last.key)):
        raise ConfigError(
            f"{path}: the last entry, {last.dn!r}, is the beginning of what it was, {_TO_ACCEPT}"
        )


def _refuse_lost_mark(is_marked: bool, was_marked: bool, path: str) -> None:
    if was_marked and not is_marked:
        raise ConfigError(f"{path}: the last line is not '# end', as it is in the content in force")


def _refuse_half(lost: int, entries: int, path: str) -> None:
    if entries and 2 * lost >= entries:
        raise ConfigError(f"{path}: {lost} of {entries} entries are gone, {_TO_ACCEPT}")


def _last(entries: Iterable[Entry]) -> Entry | None:
    last = None
    for last in entries:  # noqa: B007
        pass
    return last


def _is_beginning(entry: Entry, whole: Entry | None) -> bool:
    """Whether an entry is what is left of a record that is cut at the end of a line."""
    if whole is None or entry == whole:
        return False
    return all(values == whole.values(name)[: len(values)] for name, values in entry.items())
