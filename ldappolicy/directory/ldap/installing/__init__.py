"""The schema, and who may write what it brings, into a running server: `ldappolicy schema install`.

One module a family of servers: `openldap` (cn=config), `ds389` (cn=schema), `active_directory` (the schema
naming context). Each adds what is missing, completes classes that have grown, leaves and names what is
not as shipped, and returns what it did, a line each: nothing when all was there.
"""

from dataclasses import dataclass

from ldappolicy.directory.loading import Attributes

LEFT = "left: "
"""How a line begins that tells what was not done."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whom the access rules are about; None in its place leaves access alone.

    `bases` are where entries with our attributes are kept; `postmasters` is the DN of the group that may
    write them, nobody but the server's own root identity when empty. Rules that were brought in without a
    group are exchanged when there is one; those that a site wrote stay alone.
    """

    bases: tuple[str, ...]
    postmasters: str = ""


def values_of(attributes: Attributes, wanted: str) -> tuple[str, ...]:
    """The values of an attribute, its name in any case."""
    return next((values for name, values in attributes.items() if name.lower() == wanted.lower()), ())
