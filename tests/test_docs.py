"""The documents do not go stale: commands parse, tables are those of the records, named files exist."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import featherweight
from featherweight.cli import _parser, main
from featherweight.record import BY_KEY, read_records
from tests.tutorials import READER, SHORTER

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted({line.split("  #")[0].strip() for line in README.splitlines() if line.startswith("featherweight ")})


def script(name: str) -> Any:
    """A file of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_is_understood(command: str) -> None:
    assert _parser().parse_args(shlex.split(command)[1:]).verb


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE)) <= targets
    assert "table" in targets


def test_python_code_of_the_readme_compiles_and_names_only_what_exists() -> None:
    for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(code, "README.md", "exec")
        for verb in re.findall(r"fw\.(\w+)\(", code):
            assert callable(getattr(featherweight, verb))


def test_the_model_of_the_readme_is_built() -> None:
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "Block(" in code]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["model"].output_shape == (None, 10)


def test_every_budget_key_is_named_in_the_readme() -> None:
    for key in BY_KEY:
        assert f"`{key}`" in README


@pytest.mark.parametrize("page", ["README.md", "docs/detection.md"])
def test_the_tables_are_those_of_the_records(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- table:" in text
    assert script("readme_table").fill(text) == text


def test_every_tutorial_has_a_reader() -> None:
    assert {path.stem for path in (ROOT / "docs").glob("tutorial-*.md")} == {f"tutorial-{name}" for name in READER}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data that the tutorials need is not beside the project")
@pytest.mark.parametrize("name", READER)
def test_every_command_and_all_code_of_a_tutorial_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / f"tutorial-{name}.md").read_text(encoding="utf-8")
    READER[name](SHARED, tmp_path)
    monkeypatch.chdir(tmp_path)
    for command in script("tutorials").commands_of(page):
        _, verb, *rest = shlex.split(command)
        status = main([verb, *rest, *SHORTER.get(verb, ())])
        # One epoch on few pictures need not fit the budget.
        assert status == 0 or (verb == "fit" and status == 1), (command, capsys.readouterr().err)
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, {})


def test_links_lead_to_files() -> None:
    pages = [ROOT / page for page in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    for page in [*pages, *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists()


def test_no_document_names_a_registry_or_a_place_on_somebodys_machine() -> None:
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        ROOT / "constraints.txt",
        ROOT / "Makefile",
        *(ROOT / "results").glob("*"),
    ]:
        text = path.read_text(encoding="utf-8")
        assert "://" not in text.replace("https://arxiv.org", ""), path
        assert not re.search(r"(?<![\w.])/(home|root|work|Users|tmp)/", text), path


def test_the_figure_and_the_ranks_are_those_of_the_records() -> None:
    module = script("theory")
    records = read_records(ROOT / "results" / "zoo.jsonl")
    page = (ROOT / "docs" / "lightweight-cnns.md").read_text(encoding="utf-8")
    assert module.rank_table(records) in page
    assert module.extreme_text(records) in page
    assert module.figure(records) == (ROOT / "docs" / "macs-latency.svg").read_text(encoding="utf-8")
