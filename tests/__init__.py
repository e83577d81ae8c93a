"""The tests: tables of cases first, real slapd and Postfix where it matters."""
