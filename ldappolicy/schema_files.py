"""The files of schema/ that come with the package, by the name that `ldappolicy schema` gives them.

One path holds in a checkout, an editable install and a wheel: `schema` beside this module.
"""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "schema"


@dataclass(frozen=True, slots=True)
class SchemaFile:
    """One of them: its name, the file, what it is."""

    name: str
    file: str
    description: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return FOLDER / self.file

    def read(self) -> bytes:
        """Its octets."""
        return self.path.read_bytes()


SCHEMA_FILES = {
    shipped.name: shipped
    for shipped in (
        SchemaFile("openldap", "ldappolicy.ldif", "schema for OpenLDAP's cn=config"),
        SchemaFile("slapd", "ldappolicy.schema", "schema for OpenLDAP's slapd.conf"),
        SchemaFile("389ds", "99ldappolicy.ldif", "schema for 389 Directory Server"),
        SchemaFile("active_directory", "ldappolicy-ad.ldif", "schema for Active Directory"),
        SchemaFile("classes", "classes.ldif", "restriction classes, under a policy_base"),
        SchemaFile("example", "example.ldif", "the example company: a whole tree"),
        SchemaFile("access_openldap", "access-openldap.ldif", "who may write policy: to be filled in"),
        SchemaFile("access_389ds", "access-389ds.ldif", "the same for 389 Directory Server"),
        SchemaFile("access_active_directory", "access-ad.md", "the same for Active Directory, to be read"),
    )
}
