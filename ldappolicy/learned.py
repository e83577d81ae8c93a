"""What lists came to before, by the request attributes that they looked at.

A list is a function of the facts and of those attributes of the request that it looks at, one after the
other; which one is next depends on the values of those before it alone. So what it came to is kept in a
tree: at each place the attribute that is looked at there, and a branch for each value that it had. Whoever
walks it with a request looks at what the list would have looked at, and no more. An unrestricted sender is
known by the sender alone, whoever the mail is for, where a whole decision hardly ever comes twice.

`NotedRequest` is how it is found out what is looked at. All of it holds for one object of facts.
"""

from typing import Generic, TypeVar

from ldappolicy.request import Request

_T = TypeVar("_T")

MOST = 65_536
"""Outcomes that are kept; then all of them go, since clients choose the values."""

LONGEST = 128
"""A value of more characters is not kept, as in `address.REMEMBERED`."""


def _noting(number: int) -> property:
    def get(request: "NotedRequest") -> str:
        request.looks.append(number)
        return request[number]

    return property(get)


class NotedRequest(Request):
    """A request that notes the number of each attribute that is looked at by name, in `looks`."""

    looks: list[int]

    vars().update({name: _noting(number) for number, name in enumerate(Request._fields)})


def noted(request: Request) -> NotedRequest:
    """The same request, taking notes."""
    copy = tuple.__new__(NotedRequest, request)
    copy.looks = []
    return copy


class _Place:
    """Where the attribute with that number is looked at."""

    __slots__ = ("branches", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.branches: dict[str, object] = {}


class Learned(Generic[_T]):
    """What one list came to."""

    __slots__ = ("_count", "_root")

    def __init__(self) -> None:
        self._root: object = None
        self._count = 0

    def recall(self, request: Request) -> _T | None:
        """What it came to for such a request; None: nobody knows."""
        place = self._root
        while isinstance(place, _Place):
            place = place.branches.get(request[place.number])
        return place  # type: ignore[return-value]  # a cast would cost as much as a branch

    def learn(self, request: NotedRequest, outcome: _T) -> None:
        """Keeps what it came to for a request that has taken notes since the list began."""
        looks = list(dict.fromkeys(request.looks))
        if any(len(request[number]) > LONGEST for number in looks):
            return
        if self._count >= MOST:
            self._root, self._count = None, 0
        self._count += 1
        if looks:
            self._root = _grown(self._root, request, looks, outcome)
        else:
            self._root = outcome


def _grown(place: object, request: Request, looks: list[int], outcome: object) -> _Place:
    """The place with a branch for these values; what looked elsewhere there gives way."""
    number = looks[0]
    if not isinstance(place, _Place) or place.number != number:
        place = _Place(number)
    value = request[number]
    rest = looks[1:]
    place.branches[value] = _grown(place.branches.get(value), request, rest, outcome) if rest else outcome
    return place
