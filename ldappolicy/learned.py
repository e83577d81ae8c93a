"""What lists came to before, by the request attributes that they looked at.

A list is a function of the facts and of those attributes of the request that it looks at, one after the
other; which one is next depends on the values of those before it alone. So what it came to is kept in a
tree: at each place the attribute that is looked at there, and a branch for each value that it had. Whoever
walks it with a request looks at what the list would have looked at, and no more. An unrestricted sender is
known by the sender alone, whoever the mail is for, where a whole decision hardly ever comes twice.

Values are the bytes that came, or are made of text again (`ValuesOf`): nobody has to make text of a request
whose lists are known. `NotedRequest` is how it is found out what is looked at. All of it holds for one
object of facts.
"""

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

from ldappolicy.memories import Memory
from ldappolicy.request import Request

_T = TypeVar("_T")

PLACE_BYTES = 800
"""Of one place of a tree, or one leaf, with the value that leads there."""

LONGEST = 128
"""A value of more bytes is not kept, as in `address.REMEMBERED`."""


class Values(Protocol):
    """Attributes of a request by their names, as bytes; IndexError for one that is not at hand.

    As a `re.Match` has its groups.
    """

    def __getitem__(self, name: str, /) -> bytes | Any:
        """The value of one."""
        ...


class ValuesOf:
    """The same of a request that is text: all of them, made bytes again."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def __getitem__(self, name: str, /) -> bytes:
        value: str = getattr(self._request, name)
        return value.encode("utf-8", "surrogateescape")


class NotedRequest:
    """Stands in for a request before those who look at attributes by name, and at nothing else of it.

    `looks` are the names, in the order of the first looks.
    """

    def __init__(self, request: Request) -> None:
        self.looks: list[str] = []
        self._request = request

    def __getattr__(self, name: str) -> str:
        if name not in Request._fields:
            raise AttributeError(name)
        value: str = getattr(self._request, name)
        self.looks.append(name)
        self.__dict__[name] = value
        return value

    @property
    def as_request(self) -> Request:
        """Itself, for their annotations."""
        return cast(Request, self)


class _Place:
    """Where the attribute of that name is looked at."""

    __slots__ = ("branches", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.branches: dict[bytes, object] = {}


class Learned(Generic[_T]):
    """What one list came to; it counts as part of a memory, and ends with what is `among` it."""

    __slots__ = ("_among", "_root")

    def __init__(self, among: Memory[object, object]) -> None:
        self._root: object = None
        self._among = among

    def recall(self, values: Values) -> _T | None:
        """What it came to for such a request; None: nobody knows."""
        place = self._root
        try:
            while isinstance(place, _Place):
                place = place.branches.get(values[place.name])
        except IndexError:
            return None
        return place  # type: ignore[return-value]  # a cast would cost as much as a branch

    def goes_on(self, values: Values) -> bool:
        """Whether it is known to look at more than the first attribute, for such a request.

        That one has to be at hand.
        """
        place = self._root
        return isinstance(place, _Place) and isinstance(place.branches.get(values[place.name]), _Place)

    def learn(self, looks: Sequence[str], values: Values, outcome: _T) -> None:
        """Keeps what it came to after these looks; what looked elsewhere in its place gives way."""
        among = self._among
        if among.used >= among.size:
            among.clear()
            self._root = None
        place: _Place | None = None
        value = b""
        for name in looks:
            deeper = self._root if place is None else place.branches.get(value)
            if not isinstance(deeper, _Place) or deeper.name != name:
                deeper = _Place(name)
                among.used += PLACE_BYTES
                self._put(place, value, deeper)
            place, value = deeper, values[name]
            if len(value) > LONGEST:
                return
        among.used += PLACE_BYTES
        self._put(place, value, outcome)

    def _put(self, place: _Place | None, value: bytes, what: object) -> None:
        if place is None:
            self._root = what
        else:
            place.branches[value] = what
