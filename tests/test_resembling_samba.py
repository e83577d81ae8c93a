"""Active Directory ignores accents, Samba does not: what a mirror cannot tell is neither theirs nor nobody's.

On demand the server's own answer counts: Samba returns nothing for a key with another accent: absent.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldappolicy.service import Service
from tests.labs.deciding import configuration, deciding, following, rcpt
from tests.labs.ldappolicy import Sections
from tests.labs.samba import SUFFIX, Samba, needs_samba
from tests.labs.server import folder

pytestmark = [pytest.mark.servers, needs_samba]

DEFERRED = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
DATA = f"""\
{folder("people")}{folder("policy")}dn: CN=zoe,OU=people,{SUFFIX}
objectClass: user
cn: zoe
sAMAccountName: zo\u00eb
userAccountControl: 544
mail: zo\u00eb@my.domain

dn: CN=amy,OU=people,{SUFFIX}
objectClass: user
cn: amy
sAMAccountName: amy
userAccountControl: 544
mail: amy@my.domain

dn: CN=team,{SUFFIX}
objectClass: group
cn: team
sAMAccountName: team
mail: team@my.domain
smtpdRecipientAccess: reject

dn: cn=default,OU=policy,{SUFFIX}
objectClass: smtpdPolicy
cn: default
smtpdRecipientDelimiter: +
smtpdRecipientRestrictions: check_recipient_access directory:access, check_sasl_access directory:nobody
"""
SAME = {
    "a login as it is": ({"sasl_username": "amy"}, "DUNNO"),
    "a login without case": ({"sasl_username": "AMY"}, "DUNNO"),
    "a login that has its accent": ({"sasl_username": "zo\u00eb"}, "DUNNO"),
    "a login that has its accent, without case": ({"sasl_username": "ZO\u00cb"}, "DUNNO"),
    "somebody else's login": ({"sasl_username": "ami"}, "REJECT"),
    "a list as it is": ({"recipient": "team@my.domain"}, "REJECT"),
    "a list with an extension": ({"recipient": "team+x@my.domain"}, "REJECT"),
    "a list with an accent in its extension": ({"recipient": "team+\u00e9@my.domain"}, "REJECT"),
    "another list": ({"recipient": "teem@my.domain"}, "DUNNO"),
}
"""Attributes of a message, and what is answered to it in both modes."""

ACCENTS = {
    "a login with an accent": ({"sasl_username": "\u00e1my"}, "REJECT"),
    "a login without its accent": ({"sasl_username": "zoe"}, "REJECT"),
    "a list with an accent": ({"recipient": "te\u00e1m@my.domain"}, "DUNNO"),
}
"""What is answered where the server says that there is none; mirrored it is deferred."""
MODES = {
    "on_demand": {**SAME, **ACCENTS},
    "mirror": {**SAME, **{name: (given, DEFERRED) for name, (given, _) in ACCENTS.items()}},
}


@pytest.fixture(scope="module")
def samba() -> Iterator[Samba]:
    """Two people and a list."""
    with Samba(schema="ldappolicy") as server:
        server.load(DATA)
        yield server


@pytest.mark.parametrize("mode", MODES)
def test_accents(samba: Samba, mode: str, tmp_path: Path) -> None:
    """Case is folded beyond ASCII; an accent is absent as Samba says, or deferred by its skeleton."""
    password = tmp_path / "password"
    password.write_text(samba.root_pw)
    password.chmod(0o600)
    place = {"search_base": SUFFIX, "policy_base": f"OU=policy,{SUFFIX}", "profile": "active_directory"}
    bind = {"bind": "simple", "bind_dn": samba.root_dn, "bind_pw_file": str(password)}
    sections: Sections = {"directory": {**place, **bind}, "cache": {"mode": mode}}

    async def decided(service: Service) -> dict[str, str | None]:
        request = {"sender": "x@elsewhere.example", "recipient": "friend@elsewhere.example"}
        return {
            name: await service.decide(rcpt(**{**request, **given}))
            for name, (given, _) in MODES[mode].items()
        }

    async def story() -> dict[str, str | None]:
        async with deciding(samba.uri, sections) as service:
            if mode == "on_demand":
                return await decided(service)
            async with following(service, configuration(samba.uri, sections)):
                return await decided(service)

    assert {name: expected for name, (_, expected) in MODES[mode].items()} == asyncio.run(story())
