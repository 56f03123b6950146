"""Strict numerics for every test, eight CPU devices, and the real data sets where they are at hand."""

import os
from collections.abc import Iterator
from pathlib import Path

from compiler import FLAGS

os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {FLAGS}")
# With several CPU devices and few cores, collectives can deadlock for want of threads.
os.environ.setdefault("NPROC", "16")

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs of one recipe share their compiled steps, and nothing is left in the user's own cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("user_cache"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("cache")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="module", autouse=True)
def compiled_programs() -> Iterator[None]:
    """Each file leaves none behind: every program is some mappings of memory, of which Linux gives a process 65,530,
    and XLA crashes where it gets none."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real public data sets: $LABELFX_DATA, or `shared/data` beside the checkout."""
    root = Path(os.environ.get("LABELFX_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no real data sets: {root} is not a folder (set LABELFX_DATA)")
    return root
