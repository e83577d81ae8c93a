"""A fixed sample of faults in the core, and which tests see each of them: `python -m tests.mutants`."""
