"""Puts a service together from the configuration: directory, caches, policies.

What the configuration alone cannot tell is checked here: whether bases are DNs, the filter a filter, the
LDIF file readable. Raises ConfigError.
"""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

from ldappolicy.config import Config, Profile
from ldappolicy.counters import Counters
from ldappolicy.decision_log import DecisionLog
from ldappolicy.directory import Directory
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings, Refusals, exposed
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Planner, Where
from ldappolicy.entry import is_below, normal_dn
from ldappolicy.errors import ConfigError, InputError, Unavailable
from ldappolicy.evaluate import Choices
from ldappolicy.evaluation import Naming
from ldappolicy.freshness import Freshness, Upkeep
from ldappolicy.ldap_filter import Filter, attributes_in, parse
from ldappolicy.log import Lines
from ldappolicy.mapping import AUTO, GENERIC, Mapping, mapping_for, suited_by
from ldappolicy.policy import POLICY_ATTRIBUTES, Fault
from ldappolicy.resolver import Limits, Resolver
from ldappolicy.service import Service, Settings, shown_by_all
from ldappolicy.snapshot import fingerprint

logger = logging.getLogger("ldappolicy.assembly")


def open_directory(
    config: Config, counters: Counters | None = None, refusals: Refusals | None = None
) -> Directory:
    """The directory that the configuration names; an LDAP server is not contacted yet."""
    path = config.directory.ldif
    if path is None:
        proofs = (shown_by_all(_base("search_base", config.directory.search_base)),)
        settings = replace(ldap_settings(config), proofs=proofs)
        return LdapDirectory(settings, counters=counters, refusals=refusals)
    directory = read_ldif(path)
    mapping = mapping_of(config)
    base = _base("search_base", config.directory.search_base)
    if not directory.holds(base):
        raise ConfigError(f"[directory] search_base: expected a DN that {path} holds, got {base!r}")
    members = (*mapping.member, *mapping.member_address)
    directory.prepare((*mapping.mail, *mapping.login, *mapping.domain, *members, "objectClass"))
    return directory


def read_ldif(path: Path) -> LdifDirectory:
    """The embedded directory in a file; raises ConfigError when it cannot be read or does not parse."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            directory = LdifDirectory.parse(file.read(), str(path), (status.st_dev, status.st_ino))
    except OSError as problem:
        reason = (problem.strerror or "unknown").lower()
        raise ConfigError(f"{path}: cannot be read: {reason}, expected an LDIF file") from None
    except InputError as problem:
        raise ConfigError(str(problem)) from None
    for reference in directory.references:
        logger.warning("%s", reference)
    return directory


def ldap_settings(config: Config) -> LdapSettings:
    """The [directory] section as the LDAP transport takes it."""
    directory = config.directory
    return LdapSettings(
        uris=directory.uri,
        bind=directory.bind,
        bind_dn=directory.bind_dn,
        bind_pw_file=str(directory.bind_pw_file or ""),
        allow_cleartext=directory.allow_cleartext,
        start_tls=directory.start_tls,
        tls_ca_cert_file=str(directory.tls_ca_cert_file or ""),
        tls_cert_file=str(directory.tls_cert_file or ""),
        tls_key_file=str(directory.tls_key_file or ""),
        tls_require_cert=directory.tls_require_cert,
        timeout=directory.timeout,
        connections=directory.connections,
        suited=() if directory.profile == AUTO else suited_by(directory.profile),
    )


def exposed_files(config: Config) -> list[Fault]:
    """A warning for each file with a secret that everybody on this machine may read."""
    if config.directory.ldif is not None:
        return []
    return [
        Fault(False, "[directory]", key, f"everybody may read {name!r}, expected a file with mode 0600")
        for key, name in exposed(ldap_settings(config))
    ]


# ------------------------------------------------------------ the profile


async def settled(config: Config, directory: Directory) -> Config:
    """The configuration with the profile of the server that answers in the place of "auto".

    Raises Unavailable while none answers, ConfigError when they are of another family than the profile.
    """
    if not isinstance(directory, LdapDirectory):
        return with_profile(config, GENERIC)
    try:
        found = await directory.identify()
    except Unavailable:
        if not directory.unsuited:
            raise
        profile = config.directory.profile
        if profile != AUTO:
            raise ConfigError(
                f"[directory] profile: expected {AUTO!r} or the one of the server, got {profile!r}: "
                f"{directory.unsuited}"
            ) from None
        directory.expect(())  # they are not what they were once
        found = await directory.identify()
    return settled_on(config, directory, found or GENERIC)


def settled_on(config: Config, directory: Directory, profile: str) -> Config:
    """The same where the profile is known; from then on no server of another family is asked."""
    if config.directory.profile == AUTO and isinstance(directory, LdapDirectory):
        directory.expect(suited_by(profile, is_found=True))
    return with_profile(config, profile)


def unsettled(config: Config, directory: Directory) -> Config | None:
    """As `settled_beforehand`; no more is expected of the servers than the configuration does."""
    if config.directory.profile == AUTO and isinstance(directory, LdapDirectory):
        directory.expect(())
    return settled_beforehand(config)


def settled_beforehand(config: Config) -> Config | None:
    """The configuration where its profile needs no server to be known, else None."""
    known = with_profile(config, GENERIC) if config.directory.ldif is not None else config
    return None if known.directory.profile == AUTO else known


def with_profile(config: Config, profile: str) -> Config:
    """The configuration with a profile in the place of "auto"."""
    if config.directory.profile != AUTO:
        return config
    return replace(config, directory=replace(config.directory, profile=cast("Profile", profile)))


def mapping_of(config: Config) -> Mapping:
    """The attributes that hold what; an LDIF file is of no family."""
    known = settled_beforehand(config) or config
    return mapping_for(known.directory.profile, known.directory.attributes)


# ------------------------------------------------------------ the service


def build_service(
    config: Config,
    directory: Directory,
    counters: Counters | None = None,
    decisions: DecisionLog | None = None,
) -> Service:
    """A service over a directory; it has no policies yet (`Service.reload`)."""
    settings = service_settings(config)
    where = where_of(config)
    cache = config.cache
    limits = Limits(cache.size, cache.ttl, cache.negative_ttl, cache.max_stale)
    resolver = Resolver(directory, Planner(where, settings.mapping), limits, time.monotonic, counters)
    if isinstance(directory, LdifDirectory):
        # What is in memory anyway is its own mirror; a file that changes is another directory.
        resolver.use_mirror(directory)
        resolver.vouch()
    service = Service(resolver, settings, decisions)
    directory.set_proofs(service.proofs())
    return service


def where_of(config: Config) -> Where:
    """What the configuration says of searching."""
    base = _base("search_base", config.directory.search_base)
    return Where(base, _filter(config), frozenset(config.directory.domain))


def decision_log(config: Config, lines: Lines, ids: Callable[[], str]) -> DecisionLog:
    """Where decisions are written; `ids` numbers them."""
    log = config.log
    return DecisionLog(log.decisions, log.format, lines, ids, is_shadow=config.policy.shadow)


def build_freshness(
    config: Config, directory: Directory, service: Service, reload: Callable[[], Awaitable[None]]
) -> Freshness | None:
    """What keeps a service as its directory is; None where that is not to be watched, or tells nothing."""
    if config.directory.watch == "off" or not isinstance(directory, LdapDirectory):
        return None
    settings, mapping = service.settings, service.settings.mapping
    below_search_base = is_below(normal_dn(settings.policy_base), normal_dn(settings.search_base))
    upkeep = Upkeep(
        mapping=mapping,
        bases=(settings.search_base,) if below_search_base else (settings.search_base, settings.policy_base),
        policy_base=settings.policy_base,
        attributes=_watched_attributes(mapping, _filter(config)),
        watch=config.directory.watch,
        poll_interval=config.directory.poll_interval,
        mode=config.cache.mode,
        mirror_max_entries=config.cache.mirror_max_entries,
    )
    counters = service.resolver.counters
    return Freshness(directory, service.resolver, upkeep, reload, service.urls, counters)


def _watched_attributes(mapping: Mapping, owners: Filter | None) -> tuple[str, ...]:
    """All of policies, and all that lookups look at but for memberOf, of which servers do not tell."""
    read = (name for name in mapping.read_attributes if name not in mapping.member_of)
    dynamic = ("memberURL",) if mapping.has_dynamic_groups else ()
    searched = attributes_in(owners) if owners is not None else ()
    members = (*mapping.member_dns, *mapping.member_logins, *mapping.member_address)
    return tuple(dict.fromkeys((*read, *members, *dynamic, *searched, *POLICY_ATTRIBUTES)))


def site(config: Config) -> str:
    """What a snapshot belongs to: whatever the answers in it depend on."""
    directory = config.directory
    mapping = mapping_of(config)
    return fingerprint(
        *(sorted(directory.uri), directory.profile, directory.search_base, directory.policy_base),
        *(directory.filter, sorted(directory.domain), asdict(mapping)),
    )


def service_settings(config: Config) -> Settings:
    """What a service is told besides its directory and its caches."""
    permit_ok = config.policy.permit_reply == "OK"
    return Settings(
        search_base=_base("search_base", config.directory.search_base),
        policy_base=_base("policy_base", config.directory.policy_base),
        mapping=mapping_of(config),
        choices=Choices(
            config.policy.name,
            permit_ok,
            config.policy.on_unavailable,
            config.policy.shadow,
            Naming(frozenset(config.directory.login_realms), frozenset(config.directory.domain)),
        ),
        request_timeout=config.server.request_timeout,
        decision_id_in_text=config.log.decision_id_in_text,
        account=config.directory.bind_dn if config.directory.bind == "simple" else "",
    )


def _base(key: str, dn: str) -> str:
    try:
        normal_dn(dn)
    except InputError as problem:
        raise ConfigError(f"[directory] {key}: {problem}") from None
    return dn


def _filter(config: Config) -> Filter | None:
    if not config.directory.filter:
        return None
    try:
        return parse(config.directory.filter)
    except InputError as problem:
        raise ConfigError(f"[directory] filter: {problem}") from None
