"""What an installation holds: the wheel, built as pip builds it."""

import zipfile
from pathlib import Path

import pytest

import ldappolicy

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout."""
    build = pytest.importorskip("hatchling.build", reason="needs hatchling (in the extra `dev`)")
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        name = build.build_wheel(str(folder))
    with zipfile.ZipFile(folder / name) as archive:
        return archive


def test_schema_is_inside(wheel: zipfile.ZipFile) -> None:
    """Every file of schema/ is package data."""
    expected = {f"ldappolicy/schema/{path.name}" for path in (ROOT / "schema").iterdir()}
    assert expected == {name for name in wheel.namelist() if name.startswith("ldappolicy/schema/")}


def test_schema_is_found_in_a_checkout() -> None:
    """The same path holds in a checkout and an editable install."""
    assert (ROOT / "schema").samefile(Path(ldappolicy.__file__).parent / "schema")


MANUAL = ((8, "ldappolicy.8"), (5, "ldappolicy.toml.5"))


def test_only_the_package(wheel: zipfile.ZipFile) -> None:
    """Nothing else lands in site-packages; manual pages go where man(1) looks."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    data = f"ldappolicy-{ldappolicy.__version__}.data"
    assert {"ldappolicy", f"ldappolicy-{ldappolicy.__version__}.dist-info", data} == tops
    pages = {name.removeprefix(data) for name in wheel.namelist() if name.startswith(data)}
    assert {f"/data/share/man/man{section}/{name}" for section, name in MANUAL} == pages


def test_modules_are_inside(wheel: zipfile.ZipFile) -> None:
    """Every module is in the wheel."""
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "ldappolicy").rglob("*.py")}
    assert expected == {name for name in wheel.namelist() if name.endswith(".py")}
