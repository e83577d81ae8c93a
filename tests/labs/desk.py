"""Where commands are given: a configuration, and what was said."""

from pathlib import Path

import pytest

from ldappolicy.cli import run

Said = tuple[int, list[str], str]


class Desk:
    """One configuration."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.configuration = folder / "config.toml"
        self._capsys = capsys

    def schema(self, *arguments: str) -> Said:
        """Runs `schema`: exit status, the lines of standard output, standard error."""
        return self.run("schema", *arguments)

    def run(self, *arguments: str) -> Said:
        """Runs any command: exit status, the lines of standard output, standard error."""
        status = run(["-c", str(self.configuration), *arguments])
        said = self._capsys.readouterr()
        return status, said.out.splitlines(), said.err.rstrip("\n")

    def configure(self, uri: str, *lines: str) -> None:
        """Writes the configuration's [directory]."""
        self.configuration.write_text("\n".join(["[directory]", f"uri = ['{uri}']", *lines, ""]))
