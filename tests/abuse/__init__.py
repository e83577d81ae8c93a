"""Abuse of a running service: `python -m tests.abuse` prints the table, `pytest tests/abuse` in small."""
