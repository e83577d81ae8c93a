"""On which floor each module of the package lives: README.md shows it, tests/test_house.py holds it."""

FLOORS = [
    {"", "action", "address", "counters", "entry", "errors", "ldap_filter", "network", "vocabulary"},
    {"config", "ldif", "main_cf", "mapping", "member_urls", "request", "rewriting", "schema_files"},
    {"accounts", "facts", "learned", "log", "protocol"},
    {"policy", "revision"},
    {"evaluate", "evaluation", "identity", "residue", "restrictions", "tables"},
    {"decision_log", "directory", "invalidation", "ready", "resolver", "snapshot"},
    {
        "agreement",
        "aliases",
        "calls",
        "foresight",
        "freshness",
        "importing",
        "slowness",
        "inventory",
        "reach",
        "lint",
        "oracle",
        "service",
    },
    {"assembly", "doors", "metrics", "server", "systemd", "verification", "warm_start", "web"},
    {"daemon", "pages", "supervisor", "workers"},
    {"cli", "__main__"},
]
