"""What grows and is no `Memory`: every empty dict, set or list that a class of the service begins with.

By the reason for which no client and no directory makes it grow without end. `tests/test_house.py` holds it:
who adds one says here why it needs no bound, or takes a `Memory` (see `ldappolicy.memories`).
"""

GROWING = {
    "ends with the request, the evaluation, the search or the change": """
        directory.ldap.codec.EntryBody.controls directory.ldap.codec.Result.controls
        directory.ldap.connection._Listener.bodies directory.ldap.connection._Operation.bodies
        evaluation.Evaluation._traced evaluation.Evaluation.effects evaluation.Evaluation.flags
        evaluation.Evaluation.lacking evaluation.Evaluation.path evaluation.ServerConfigurationError.path
        identity.Closure.doubtful learned.NotedRequest.looks protocol.RequestReader._attributes
        residue.ListOutcome.pieces resolver.Resolver._queued resolver.Resolver._under_way
    """,
    "one for each connection, which max_connections bounds, listener, process, server, stream or task": """
        daemon.Daemon._leaving directory.ldap.connection.Connection._listeners
        directory.ldap.connection.Connection._pending directory.ldap.failover.LdapDirectory._background
        directory.ldap.failover.LdapDirectory._behind directory.ldap.failover.LdapDirectory._leaving
        directory.ldap.failover.LdapDirectory._own directory.ldap.failover.LdapDirectory._unsuited
        directory.ldap.lines.Lines._opening directory.ldap.refusals.Refusals._held
        directory.ldap.streams._Streams._barred directory.ldap.streams._Streams._followed
        doors.SharedDoor._arriving freshness.Freshness._tasks resolver.Resolver._tasks
        server.Connection._waiting server.PolicyServer._doors server.PolicyServer._open
        server.PolicyServer._servers server.PolicyServer._tasks supervisor.Supervisor._children
        supervisor.Supervisor._doors supervisor.Supervisor._refused supervisor._Child.complaints
        systemd.Systemd.doors web.Web._open
    """,
    "the configuration, or the policies in force, of which it is a part or an index": """
        config.Directory.attributes counters.Family._tallies evaluate.Evaluator._plans
        evaluate.Evaluator.looks foresight.Foresight._memory policy.PolicySet.classes policy.PolicySet.good
        policy.PolicySet.kept policy.PolicySet.policies policy.PolicySet.tables policy._Reading.classes
        policy._Reading.faults policy._Reading.good policy._Reading.parts policy._Reading.policies
        restrictions.Program._classes revision._Names._known
    """,
    "a copy of what is in the directory": """
        directory.ldap.streams.census.Census._names directory.ldap.streams.covered.Covered._containers
        directory.ldap.streams.poll.PollFollowing._told directory.memory.Entries._children
        directory.memory.Entries._entries directory.memory.Entries._indexes directory.memory._Index._again
        directory.memory._Index._skeletons directory.memory._Index.by_value directory.memory._Index.present
        directory.mirror.Mirror._left directory.mirror.Mirror._touched directory.mirror._Content._keys
        directory.mirror._Content.doubtful directory.packing.Packer._classes
        directory.packing.Packer._common directory.packing.Packer._places ldif.Record.attributes
        ldif._Names.folded ldif._Names.known warm_start.WarmStart._mirrored
    """,
    "bounded where it is filled": """
        directory.ldap.abreast.Sentinels._seen directory.ldap.refusals.Refusals._accepted
        directory.ldap.slow.SlowSearches._told directory.ldap.streams.covered.Covered._gone
        facts.Facts.renamed invalidation.Dependencies._dependent log.Lines._waiting
        protocol.Glance._contexts protocol.Glance._tails resolver.Resolver._absent resolver.Resolver._found
        resolver.Resolver._renamed resolver.Resolver._unsettled
    """,
    "a place of a tree that counts among the conclusions": "learned._Place.branches",
}
