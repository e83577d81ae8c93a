"""What stays in main.cf: restrictions that are left out of the imported lists, where that opens nothing.

A restriction that can only refuse stays in front of the call for ldappolicy, where everybody meets it. One
that may permit (another policy service, a class) stays behind the call: in front of it, its OK would pass
over what is imported. There nobody meets it whom the reply itself has permitted; so it stays in the imported
list, as an error when reached, where something behind it permits that is left to Postfix. The same holds for
a class that has it: whoever reaches it there is not everybody.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace

from ldappolicy import vocabulary
from ldappolicy.action import split_list
from ldappolicy.errors import InputError
from ldappolicy.main_cf import Definition, MainCf
from ldappolicy.policy import PARAMETERS

Items = list[tuple[str, ...]]
"""Restrictions with their arguments; `warn_if_reject` is one of its own."""

_HERE = frozenset(("permit", "permit_sasl_authenticated"))
"""What permits and is decided here, whatever the policy says."""


@dataclass(frozen=True, slots=True)
class Left:
    """A main.cf without what stays there (FILE:LINE, text), and what could not be taken out of it."""

    main: MainCf
    stays: list[tuple[str, str]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


def grouped(tokens: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Restrictions with their arguments."""
    waiting = iter(tokens)
    for token in waiting:
        name = token.lower()
        takes = (
            name in vocabulary.CHECKS or name in vocabulary.ONLY_IN_MAIN_CF or name in vocabulary.WITH_DOMAIN
        )
        argument = next(waiting, None) if takes else None
        yield (token,) if argument is None else (token, argument)


def leave(main: MainCf, names: Collection[str]) -> Left:
    """The main.cf without the restrictions of these names; raises InputError for one that no list has."""
    wanted = {_known(name) for name in names}
    left = Left(main)
    definitions = dict(main.definitions)
    found: set[str] = set()
    for parameter in (*PARAMETERS.values(), *_classes(main)):
        items = _items(main, parameter)
        found |= wanted & {_known(item[0]) for item in items}
        if wanted.isdisjoint(_known(item[0]) for item in items):
            continue
        if parameter not in PARAMETERS.values():
            what = "in a class it is asked about some only: it is an error when reached"
            left.refused.extend(
                (main.where(parameter), f"{parameter}: {' '.join(item)} cannot be left out, {what}")
                for item in items
                if _known(item[0]) in wanted
            )
            continue
        kept = list(_kept(main, parameter, items, wanted, left))
        text = ", ".join(" ".join(item) for item in kept).replace("$", "$$")
        definitions[parameter] = Definition(text, main.where(parameter))
    if missing := sorted(wanted - found):
        raise InputError(f"--leave-in-main-cf {missing[0]}: no list or class of {main.path} has it")
    return replace(left, main=replace(main, definitions=definitions))


def _known(name: str) -> str:
    """Built-in names in lower case: those of classes are not folded."""
    return name.lower() if name.lower() in vocabulary.RESERVED else name


def _classes(main: MainCf) -> list[str]:
    names = _split(main, "smtpd_restriction_classes")
    return [name for name in dict.fromkeys(names) if main.is_set(name)]


def _items(main: MainCf, parameter: str) -> Items:
    return list(grouped(_split(main, parameter)))


def _split(main: MainCf, parameter: str) -> tuple[str, ...]:
    try:
        return split_list(main.get(parameter))
    except InputError as problem:
        raise InputError(f"{main.where(parameter)}: {parameter}: {problem}") from None


def _kept(
    main: MainCf, parameter: str, items: Items, wanted: set[str], left: Left
) -> Iterator[tuple[str, ...]]:
    """The items that are imported; the others, and why some of them cannot be left out, are told."""
    where = main.where(parameter)
    pending: list[tuple[str, ...]] = []
    for at, item in enumerate(items):
        if item[0].lower() == "warn_if_reject":
            pending.append(item)
            continue
        if _known(item[0]) not in wanted:
            yield from (*pending, item)
        else:
            text = " ".join(word for one in (*pending, item) for word in one)
            permits = _only_refuses(item[0])
            behind = None if permits else _permit_behind(main, items[at + 1 :])
            if behind is not None:
                what = f"{behind} behind it may let past who has to meet it: it is an error when reached"
                left.refused.append((where, f"{parameter}: {text} cannot be left out, {what}"))
                yield from (*pending, item)
            else:
                place = "in front of" if permits else "behind"
                left.stays.append(
                    (where, f"{parameter}: {text} stays in main.cf, {place} the call for ldappolicy")
                )
        pending = []
    yield from pending


def _only_refuses(name: str) -> bool:
    """Whether a restriction never permits: it may stand in front of everything."""
    folded = name.lower()
    refuses = vocabulary.LEFT_TO_POSTFIX.get(folded) not in (None, vocabulary.Residue.PERMITS)
    return refuses or (folded in vocabulary.BUILT_IN and folded.startswith(("reject", "defer")))


def _permit_behind(main: MainCf, items: Items) -> str | None:
    """What stands behind and can permit in Postfix itself: by its name, in a class, or in a table."""
    tables = ("check_", "warn_if_reject")
    for item in items:
        name = item[0].lower()
        if name.startswith("permit") and name not in _HERE:
            return " ".join(item)
        if (name.startswith(tables) or name not in vocabulary.BUILT_IN) and (
            other := _permit_in_classes(main)
        ):
            return f"{' '.join(item)} (class {other})"
    return None


def _permit_in_classes(main: MainCf) -> str:
    """A class that can permit in Postfix itself: what a table says may name any."""
    for name in _classes(main):
        for item in _items(main, name):
            word = item[0].lower()
            if word.startswith("permit") and word not in _HERE:
                return name
    return ""
