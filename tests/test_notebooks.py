"""The notebooks of the documentation run from the first cell to the last, and are kept without outputs."""

import ast
import json

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
QUICK = "first_run"
REPRESENTATIONS = ("__repr__", "_repr_html_", "_repr_png_")
SHOW = f"""
def show(value):
    for name in {REPRESENTATIONS}:
        if represent := getattr(value, name, None):
            assert represent(), name
"""
"""What Jupyter does with the value of a cell."""
MADE = {
    "first_run": ["runs/first"],
    "from_archive_to_scorecard": ["runs/hindcast", "scores.csv", "scorecard.png", "hindcast.html"],
    "comparing_two_checkpoints": ["runs/old", "runs/new", "checkpoints.png"],
}


def cells(path):
    return json.loads(path.read_text())["cells"]


def code(path):
    """The code of all cells, each of which ends by showing its value if it has one."""
    lines = [SHOW]
    for cell in cells(path):
        if cell["cell_type"] == "code":
            parsed = ast.parse("".join(cell["source"]))
            if isinstance(parsed.body[-1], ast.Expr):
                shown = ast.Call(ast.Name("show", ast.Load()), [parsed.body[-1].value], [])
                parsed.body[-1] = ast.Expr(shown)
            lines.append(ast.unparse(ast.fix_missing_locations(parsed)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem == QUICK else pytest.mark.slow) for path in NOTEBOOKS],
)
def test_a_notebook_runs_to_its_end(path, run_on_ray, tmp_path):
    done = run_on_ray(code(path), cwd=tmp_path, kind="python")

    assert done.returncode == 0, done.stderr
    assert [name for name in MADE[path.stem] if not (tmp_path / name).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_with_text_between_its_cells(path):
    kinds = [cell["cell_type"] for cell in cells(path)]
    assert kinds[0] == "markdown"
    assert 3 * kinds.count("markdown") > len(kinds)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells(path))


def test_every_notebook_is_in_the_index_of_the_documentation():
    index = (FOLDER.parent / "index.md").read_text()
    assert len(NOTEBOOKS) == len(MADE)
    assert [path.stem for path in NOTEBOOKS if f"notebooks/{path.name}" not in index] == []
