"""Images decoded by processes of their own, one for each core, where threads would share an interpreter lock.

A decoder is a fresh interpreter on this module. It imports neither JAX nor the user's script, which a process of
`multiprocessing` would run again, and it is no fork, which a process that holds JAX must not make. It reads requests
from its standard input and answers on its standard output; it ends with its parent, however that ends, and Ctrl-C does
not reach it.
"""

import atexit
import collections
import contextlib
import functools
import json
import multiprocessing
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np

from labelfx.data import DataError
from labelfx.data.decode import decode, decode_bytes

Shape = tuple[int, int, int]
Found = np.ndarray | DataError

FEW = 1000  # images that threads decode before decoders start: each takes 0.3 s of a core, and gains 0.2 ms an image
TOGETHER = 16  # images of a request, at most
PIPE = 2**20  # bytes that may be on their way to or from a decoder
QUOTA = Path("/sys/fs/cgroup/cpu.max")
LOCK = threading.Lock()  # one pool, whichever thread is first


def decoded(files: Sequence[str | bytes], shape: Shape) -> Iterator[Found]:
    """Each of `files`, a path or what a file holds, as uint8 `shape`, see `labelfx.data.decode`; or why it cannot be.

    In their order, and the same whatever decodes them.

    Raises:
      ChildProcessError: a decoder died.
    """
    with LOCK:
        pool = _pool(os.getpid())
    pool.asked += len(files)
    if pool.processes < 2 or pool.asked <= FEW:
        yield from pool.threads.map(functools.partial(_decoded, shape=shape), files)
        return
    size = max(1, min(TOGETHER, len(files) // pool.processes))
    asked: collections.deque[Future[list[Found]]] = collections.deque()
    for start in range(0, len(files), size):
        asked.append(pool.askers.submit(pool.ask, files[start : start + size], shape))
        if len(asked) > 2 * pool.processes:  # no more, lest an interrupted process waits for all of them
            yield from asked.popleft().result()
    for found in asked:
        yield from found.result()


def usable_cores() -> int:
    """The cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no container, or one without a quota: "max 100000"
        quota, period = map(int, QUOTA.read_text().split())
        cores = min(cores, max(1, quota // period))
    return cores


def _decoded(file: str | bytes, shape: Shape) -> Found:
    try:
        return decode_bytes(file, shape) if isinstance(file, bytes) else decode(Path(file), shape)
    except DataError as error:
        return error


class _Pool:
    """The decoders of a process, each started when it is first needed, and threads that wait for their answers."""

    def __init__(self) -> None:
        cores = usable_cores()
        self.processes = 0 if multiprocessing.parent_process() else cores  # one of several has no cores to itself
        self.threads = ThreadPoolExecutor()
        self.askers = ThreadPoolExecutor(cores)  # as many as decoders: none waits for one, perhaps for ever
        self.asked = 0  # images so far
        self.idle: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        for _ in range(self.processes):
            self.idle.put(None)
        atexit.register(self.close)

    def ask(self, files: Sequence[str | bytes], shape: Shape) -> list[Found]:
        """What a decoder makes of these files."""
        decoder = self.idle.get()
        try:
            decoder = decoder or _start()
            return _ask(decoder, files, shape)
        except (OSError, ValueError) as error:  # a pipe is broken, or an answer cut short
            code, decoder = _end(decoder), None
            why = f"was killed by signal {-code}; is memory short?" if code < 0 else f"ended with exit code {code}"
            raise ChildProcessError(f"a process that decodes images {why}") from error
        finally:
            self.idle.put(decoder)

    def close(self) -> None:
        while not self.idle.empty():
            _end(self.idle.get())


@functools.cache
def _pool(process: int) -> _Pool:
    """That of this process: a fork has none of the threads of its parent's."""
    return _Pool()


def _start() -> subprocess.Popen[bytes]:
    # NumPy's libraries would start a thread for each core.
    env = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    decoder = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | env,
        start_new_session=True,
    )
    with contextlib.suppress(ImportError, AttributeError, OSError):  # where there is no larger pipe, a small one does
        import fcntl

        for stream in (decoder.stdin, decoder.stdout):
            fcntl.fcntl(cast(Any, stream), fcntl.F_SETPIPE_SZ, PIPE)
    return decoder


def _end(decoder: subprocess.Popen[bytes] | None) -> int:
    """The exit code of a decoder that has been told that there are no more requests."""
    if decoder is None:
        return 0
    decoder.communicate()
    return decoder.wait()


def _ask(decoder: subprocess.Popen[bytes], files: Sequence[str | bytes], shape: Shape) -> list[Found]:
    requests: Any = decoder.stdin
    answers: Any = decoder.stdout
    relative = isinstance(files[0], str) and not os.path.isabs(files[0])
    listed = [len(file) if isinstance(file, bytes) else file for file in files]
    requests.write(_line([os.getcwd() if relative else None, shape, listed]))
    requests.writelines(file for file in files if isinstance(file, bytes))
    requests.flush()
    errors = json.loads(answers.readline())
    images = np.empty((errors.count(None), *shape), np.uint8)
    if answers.readinto(images) != images.nbytes:
        raise ValueError("cut short")
    found = iter(images)
    return [next(found) if error is None else DataError(error) for error in errors]


def _line(content: object) -> bytes:
    return f"{json.dumps(content)}\n".encode()


def _serve() -> None:
    """A decoder, until its requests end.

    A request is a line [working folder or null, shape, for each file its path or its size in bytes], then what the
    latter hold. An answer is a line [for each file what is wrong with it, or null], then the pixels of the latter.
    """
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in requests:
        folder, shape, listed = json.loads(line)
        if folder is not None:
            os.chdir(folder)
        found = [_decoded(requests.read(each) if isinstance(each, int) else each, tuple(shape)) for each in listed]
        answers.write(_line([str(each) if isinstance(each, DataError) else None for each in found]))
        answers.writelines(each.tobytes() for each in found if isinstance(each, np.ndarray))
        answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # nobody waits for the answer any more
        _serve()
    os._exit(0)  # without a last attempt to write it
