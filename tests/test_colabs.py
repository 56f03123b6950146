"""The notebooks in colabs/: they run from clean, and what is committed can be read without running them.

    python tests/test_colabs.py [NAME...]

runs them, or those named, and saves them with their outputs.
"""

import fnmatch
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from compiler import FLAGS
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets import default
from traitlets.config import Config

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
# As `data_root` of conftest.py: EfficientNet-Lite0, which forty_labels would download.
ENCODER = Path(os.environ.get("LABELFX_ENCODER", ROOT.parent / "shared" / "models" / "efficientnet_lite0"))
# Of what Colab has on its GPUs: googlecolab/backend-info, pip-freeze.gpu.txt, June 2026.
COLAB = """
numpy==2.0.2 ipykernel==6.17.1 ipython==7.34.0 protobuf==5.29.6 tensorflow-datasets==4.9.10 tensorflow-metadata==1.21.0
""".split()
JAX = ["jax==0.7.2", "jaxlib==0.7.2", "flax==0.11.2"]
PLUGIN = ["jax-cuda12-plugin==0.7.2", "jax-cuda12-pjrt==0.7.2"]
IN_COLAB = """
import sys, types
import numpy
from IPython.core.interactiveshell import InteractiveShell
sys.modules["google.colab"] = types.SimpleNamespace(output=None)  # JAX asks for it
InteractiveShell.instance().run_cell(sys.argv[1]).raise_error()
"""


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
        "LABELFX_ENCODER": str(ENCODER),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "" if path.stem == "forty_labels" else FLAGS,  # its encoder runs for longer than it compiles
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
    if path.stem == "forty_labels" and not ENCODER.is_dir():
        pytest.skip(f"no encoder: {ENCODER} is not a folder (set LABELFX_ENCODER)")
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
    (seconds,) = re.search(r"needs no GPU .*: (\d+) seconds of a CPU", notebook.cells[0].source).groups()
    assert re.search(rf"\({path.name}\) \|.*\| {seconds} \|", (ROOT / "colabs" / "README.md").read_text())
    first, *others = code_cells(path)
    assert first.outputs == [] and notebook.cells[1] == first
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
    assert path.stat().st_size < (1_500_000 if path.stem == "forty_labels" else 400_000)  # photographs are large
    texts = [output for cell in code_cells(path) for output in cell.outputs if output.output_type == "stream"]
    for text in [output.text for output in texts]:
        assert not re.search(r"/(tmp|home|root|work|Users|opt|usr|content|var)/", text), text
        assert "\r" not in text and "\x1b" not in text, text


def test_one_first_cell():
    assert len({code_cells(path)[0].source for path in NOTEBOOKS}) == 1


@pytest.fixture
def colab(tmp_path, monkeypatch):
    """`run(driver, devices, backend)`: the first cell in a Colab of stand-ins; its result, and what pip was asked."""
    for name in ("COLAB_TPU_ADDR", "TPU_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, module in {"google.colab": ModuleType("google.colab"), "labelfx": None, "__main__": None}.items():
        monkeypatch.setitem(sys.modules, name, module)  # None: not there; IPython puts a __main__ of its own
    monkeypatch.delitem(sys.modules, "jax", raising=False)

    def run(driver="", devices=(), backend="cpu"):
        asked = []

        def pip(line):
            asked.append(line)
            if line.startswith("install"):
                for name in ("labelfx", "jax"):
                    monkeypatch.setitem(sys.modules, name, ModuleType(name))
                    sys.modules[name].__version__ = "9.9"
                sys.modules["jax"].default_backend = lambda: backend

        if driver:
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{driver}\n")
            (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setattr("glob.glob", lambda pattern: fnmatch.filter(devices, pattern))
        shell = InteractiveShell(config=Config(HistoryManager={"enabled": False}))
        shell.register_magic_function(pip, magic_name="pip")
        return shell.run_cell(code_cells(NOTEBOOKS[0])[0].source), asked

    return run


@pytest.mark.parametrize(
    "driver, devices, extras, backend",
    [
        ("", [], "colab", "cpu"),
        ("echo NVIDIA-SMI has failed; exit 9", [], "colab", "cpu"),
        ("echo Driver Version: 580.82.07", [], "colab,gpu12", "gpu"),
        ("", ["/dev/accel0"], "colab,tpu", "tpu"),
        ("", ["/dev/vfio/0"], "colab,tpu", "tpu"),
        ("", ["/dev/vfio/vfio"], "colab", "cpu"),  # the driver's own file, without a device
    ],
)
def test_the_first_cell_installs_what_fits(colab, capsys, driver, devices, extras, backend):
    result, asked = colab(driver, devices, backend)
    result.raise_error()
    assert capsys.readouterr().out == f"JAX 9.9 on {backend}\n"
    old = "jax-cuda12-plugin jax-cuda12-pjrt jax-cuda13-plugin jax-cuda13-pjrt"
    source = f'"labelfx[{extras}] @ git+https://github.com/labelfx/labelfx"'
    assert asked == [f"uninstall -qqy {old}", f"install -q numpy=={version('numpy')} {source}"]
    assert colab(driver, devices, backend)[1] == []  # a second time: labelfx is there


def test_the_first_cell_knows_a_tpu_by_its_name(colab, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "local")
    assert "labelfx[colab,tpu]" in colab(backend="tpu")[1][-1]


def test_the_first_cell_says_that_a_gpu_is_not_used(colab):
    result, _ = colab("echo")
    assert str(result.error_in_exec) == "this runtime has a GPU or TPU, but JAX is on the CPU"


def test_the_first_cell_replaces_no_jax_that_is_imported(colab, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", ModuleType("jax"))
    result, asked = colab()
    assert "Restart session" in str(result.error_in_exec) and asked == []


def test_the_first_cell_does_nothing_elsewhere(colab, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "google.colab")
    result, asked = colab("echo")
    assert result.success and asked == [] and capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_first_cell_beside_the_packages_of_colab(tmp_path):
    """Minutes, and a package index. The plugin is a stand-in without CUDA's libraries; there is no GPU."""
    python = str(tmp_path / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", tmp_path], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *JAX, *COLAB], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PLUGIN], check=True)
    cell = code_cells(NOTEBOOKS[0])[0].source.replace("git+https://github.com/labelfx/labelfx", ROOT.as_uri())
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "JAX_PLATFORMS")}
    environment |= {"IPYTHONDIR": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    options = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run([python, "-c", IN_COLAB, cell], **options)
    assert re.search(r"^JAX 0\.\d\d.* on cpu$", done.stdout, flags=re.M) and not done.returncode, (
        done.stdout + done.stderr
    )
    assert "ERROR" not in done.stdout + done.stderr  # pip's conflicts
    after = subprocess.run([python, "-m", "pip", "list", "--format=freeze"], **options).stdout.split()
    assert set(COLAB) <= {line.replace("_", "-") for line in after}
    assert not [line for line in after if "cuda" in line]


def test_the_readme_names_every_notebook():
    named = set(re.findall(r"\(([a-z_]+\.ipynb)\)", (ROOT / "colabs" / "README.md").read_text()))
    assert named == {path.name for path in NOTEBOOKS} and len(NOTEBOOKS) == 8


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
