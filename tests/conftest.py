"""What every test shares: where the project's files are, and how hypothesis runs."""

from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

# No deadline for one example: the machines that run this are shared, and a pause is not a fault.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")


@pytest.fixture(scope="session")
def example_ldif() -> Path:
    """The example company: the one tree of README, demonstration and tests."""
    return ROOT / "schema" / "example.ldif"
