"""The shipped rules about addresses, logins, groups and policies, filled in: `schema install --access`.

They are final for what they name, so that account tools have to write as a member of the group that is
named: nobody gets them but who asks for them. What is there already is left; a rule that the server refuses
(it may not know an attribute of another schema) is told and left out.
"""

import re
from collections.abc import Iterable, Iterator

from ldappolicy.directory import Scope
from ldappolicy.directory.ldap.installing import LEFT, values_of
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.entry import is_below, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.ldif import Record

_DATABASE, _SUFFIX = "olcDatabase={1}mdb,cn=config", "dc=example,dc=com"
_POLICY, _GROUP = f"ou=policy,{_SUFFIX}", f"cn=postmasters,ou=groups,{_SUFFIX}"
"""What has to be filled in in the files."""

_NUMBER = re.compile(r"\{-?\d+\}")


def install(writer: Writer, shipped: Iterable[Record], policy_base: str, group: str) -> Iterator[str]:
    """Brings in what is missing; what was done, a line each. `group` may write, nobody else."""
    for record in shipped:
        dn = _place(writer, policy_base) if record.dn == _DATABASE else _suffix(writer, policy_base)
        if not dn:
            yield f"{LEFT}{policy_base}: no access rules, for nothing that is shown holds it"
            return
        for operation, name, values in record.modifications:
            wanted = [value.replace(_GROUP, group).replace(_POLICY, policy_base) for value in values]
            found = writer.search(dn, Scope.BASE, (name,))
            there = {_bare(value) for _, held in found for value in values_of(held, name)}
            for value in wanted:
                if _bare(value) in there:
                    continue
                try:
                    writer.modify(dn, [(operation, name, (value,))])
                    yield f"added: {dn}: {name}: {_bare(value)[:60]}..."
                except InputError as problem:
                    yield f"{LEFT}{problem}"


def _bare(value: str) -> str:
    return " ".join(_NUMBER.sub("", value, count=1).split())


def _place(writer: Writer, base: str) -> str:
    """The database of slapd that holds it."""
    (config,) = writer.root_dse().get("configcontext", ("cn=config",))
    held = writer.search(config, Scope.ONE, ("olcSuffix",))
    return _nearest(base, ((dn, suffix) for dn, has in held for suffix in values_of(has, "olcSuffix")))


def _suffix(writer: Writer, base: str) -> str:
    contexts = writer.root_dse().get("namingcontexts", ())
    return _nearest(base, zip(contexts, contexts, strict=True))


def _nearest(base: str, places: Iterable[tuple[str, str]]) -> str:
    key = normal_dn(base)
    holding = [(len(suffix), dn) for dn, suffix in places if suffix and is_below(key, normal_dn(suffix))]
    return max(holding, default=(0, ""))[1]
