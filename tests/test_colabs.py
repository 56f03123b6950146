"""The notebooks in colabs/: they run from clean, and what is committed can be read without running them.

    python tests/test_colabs.py [NAME...]

runs them, or those named, and saves them with their outputs.
"""

import os
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from compiler import FLAGS
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets import default

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))


class OwnKernel(AsyncKernelManager):
    """The kernel of this interpreter, whatever others are installed for the user."""

    @default("kernel_spec_manager")
    def _only_the_native_one(self):
        return KernelSpecManager(kernel_dirs=[])


def execute(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run in an empty folder, by this interpreter and this labelfx, on one CPU device.

    Raises:
      CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IPYTHON", "JUPYTER", "MPL"))}
    environment = kept | {
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": FLAGS,
        "XDG_CACHE_HOME": str(folder.parent / "cache"),  # the notebooks share compiled programs
    }
    options = {"timeout": 600, "record_timing": False, "coalesce_streams": True}
    client = NotebookClient(notebook, kernel_manager_class=OwnKernel, **options)
    (folder / "work").mkdir()
    client.execute(env=environment, cwd=str(folder / "work"))
    return notebook


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path_factory):
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        execute(path, tmp_path_factory.mktemp("colab"))
    except CellExecutionError as error:
        pytest.fail(f"{path.name}: {error.ename}: {error.evalue}\n{error.traceback}")
    finally:
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{path.name}: {time.perf_counter() - begin:.1f} s, {cpu:.1f} s of CPU")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_can_be_read_without_running(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert f"(https://colab.research.google.com/github/labelfx/labelfx/blob/main/colabs/{path.name})" in (
        notebook.cells[0].source
    )
    first, *others = code_cells(path)
    assert first.source == (
        "import importlib.util\n\n"
        'if importlib.util.find_spec("labelfx") is None:\n'
        '    %pip install -q "labelfx[colab] @ git+https://github.com/labelfx/labelfx"'
    )
    assert [cell.execution_count for cell in (first, *others)] == list(range(1, len(others) + 2))
    for cell in others:
        kinds = {name for output in cell.outputs for name in output.get("data", {})}
        streams = {output.name for output in cell.outputs if output.output_type == "stream"}
        assert "print(" not in top_level(cell.source) or "stdout" in streams, cell.source
        assert "plt.show()" not in cell.source or "image/png" in kinds, cell.source
        assert "display(" not in cell.source or kinds > {"text/plain"}, cell.source
        assert streams <= {"stdout"} and kinds <= {"image/png", "image/svg+xml", "text/markdown", "text/plain"}, (
            cell.source
        )
        assert all(output.output_type in ("stream", "display_data") for output in cell.outputs), cell.source
        assert "execution" not in cell.metadata


def top_level(source):
    """The cell without the bodies of its functions, which print only when they are called."""
    return re.sub(r"^(@.*\n)*def .*\n((    .*)?\n)*", "", source + "\n", flags=re.M)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small_and_tells_nothing_of_a_machine(path):
    assert path.stat().st_size < 400_000
    texts = [output for cell in code_cells(path) for output in cell.outputs if output.output_type == "stream"]
    for text in [output.text for output in texts]:
        assert not re.search(r"/(tmp|home|root|work|Users|opt|usr|content|var)/", text), text
        assert "\r" not in text and "\x1b" not in text, text


def test_the_readme_names_every_notebook():
    named = set(re.findall(r"\(([a-z_]+\.ipynb)\)", (ROOT / "colabs" / "README.md").read_text()))
    assert named == {path.name for path in NOTEBOOKS} and len(NOTEBOOKS) == 5


def save(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (clean := Path(folder) / "run").mkdir()
        notebook = execute(path, clean)
    notebook.metadata["language_info"] = {"name": "python"}  # the version of Python would change with the machine
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for each in NOTEBOOKS:
        if each.stem in sys.argv[1:] or not sys.argv[1:]:
            print(each.name, flush=True)
            save(each)
