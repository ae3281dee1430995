"""gunicorn and uvicorn as they are run: preforked, killed, reloaded."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Store

import predlog

FLASK = """
import os, flask, predlog
predlog.init()
for number in range(100):
    predlog.log("m", number, None, id=f"parent-{os.getpid()}-{number}")
app = flask.Flask(__name__)

@app.get("/<id>")
def predict(id):
    outcome = predlog.log("m", {"id": id}, 1, id=id)
    return str(os.getpid()) if outcome else (outcome.reason, 503)
"""

ASGI = """
import os, fastapi, predlog
predlog.init()
app = fastapi.FastAPI()

@app.get("/{id}")
async def predict(id: str):
    assert predlog.log("m", {"id": id}, 1, id=id)
    return os.getpid()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> str | None:
    """The answer, when it is 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/{path}")
        response = connection.getresponse()
        body = response.read().decode()
        return body if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not after {seconds} s"
        time.sleep(0.02)


@contextmanager
def served(store: Store, module: str, source: str, *command: str) -> Iterator[int]:
    """Runs a server in a process group of its own, from the directory above the store's; SIGTERM ends it."""
    home, port = store.dir.parent, free_port()
    (home / f"{module}.py").write_text(source)
    environment = {**os.environ, "PREDLOG_DIRECT__DIR": str(store.dir)}
    arguments = [argument.format(port=port) for argument in command]
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen([sys.executable, "-m", *arguments], cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: server.poll() is not None or listens(port), "the server listens")
        assert server.poll() is None, (home / "server.log").read_text()
        yield port
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) is not None
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def stored_ids(store: Store) -> Counter[str]:
    """After what dead processes left is delivered too."""
    writers = store.dir / "writers"
    with store.logger() as logger:
        assert logger.flush()
        until(lambda: len(list(writers.iterdir())) == 1, "dead processes' records are delivered")
        assert logger.flush()
    return Counter(row["id"] for row in store.rows())


class Load:
    """Threads that send requests with ids of their own, and know which were answered."""

    def __init__(self, port: int, threads: int) -> None:
        self.port = port
        self.stop = threading.Event()
        self.sent: set[str] = set()
        self.answered: dict[str, str] = {}
        self.threads = [threading.Thread(target=self._run, args=(index,)) for index in range(threads)]
        for thread in self.threads:
            thread.start()

    def _run(self, index: int) -> None:
        number = 0
        while not self.stop.is_set():
            id = f"{index}-{number}"
            number += 1
            self.sent.add(id)
            answer = get(self.port, id)
            if answer is not None:
                self.answered[id] = answer

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.parametrize("preload", [False, True], ids=["workers", "preload"])
def test_gunicorn_workers_killed_at_random_lose_and_repeat_nothing(store: Store, preload: bool) -> None:
    command = ["gunicorn", "--workers", "4", "--bind", "127.0.0.1:{port}", "flask_app:app"] + ["--preload"] * preload
    with served(store, "flask_app", FLASK, *command) as port:
        load = Load(port, 4)
        chance = random.Random(7)
        for kill in range(15):
            before = len(load.answered)
            until(lambda: len(load.answered) >= before + 40, f"requests are answered after kill {kill}")
            worker = chance.choice(list(load.answered.values())[-40:])
            try:
                os.kill(int(worker), signal.SIGKILL)
            except ProcessLookupError:
                pass
        load.end()
    stored = stored_ids(store)
    assert not [id for id in load.answered if stored[id] != 1], "answered means accepted"
    assert not [id for id, count in stored.items() if count != 1]
    imports = Counter(id.rsplit("-", 1)[0] for id in stored if id.startswith("parent-"))
    assert list(imports.values()) == [100] if preload else len(imports) >= 4
    assert all(id in load.sent or id.startswith("parent-") for id in stored)


def test_uvicorn_workers(store: Store) -> None:
    with served(store, "asgi_app", ASGI, "uvicorn", "--workers", "2", "--port", "{port}", "asgi_app:app") as port:
        load = Load(port, 2)
        until(lambda: len(load.answered) >= 200 and len(set(load.answered.values())) == 2, "both workers answer")
        load.end()
    stored = stored_ids(store)
    assert not [id for id in load.answered if stored[id] != 1]


def test_a_stop_of_uvicorn_delivers_what_the_middleware_has_logged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDLOG_BATCH__MAX_AGE", "1h")
    middleware = "\nfrom predlog.asgi import PredictionLogMiddleware\napp.add_middleware(PredictionLogMiddleware, routes={'/{id}': 'watched'})\n"
    with served(store, "asgi_app", ASGI + middleware, "uvicorn", "--port", "{port}", "asgi_app:app") as port:
        assert get(port, "a") is not None
    assert {row["model_name"] for row in store.rows()} == {"m", "watched"}


def test_uvicorn_reload(store: Store) -> None:
    with served(store, "asgi_app", ASGI, "uvicorn", "--reload", "--port", "{port}", "asgi_app:app") as port:
        first = get(port, "before")
        assert first is not None
        module = store.dir.parent / "asgi_app.py"
        changed = time.time() + 2
        os.utime(module, (changed, changed))
        answers = iter(f"after-{number}" for number in range(100_000))
        until(lambda: (get(port, next(answers)) or first) != first, "the server is loaded again")
    stored = stored_ids(store)
    assert stored["before"] == 1 and any(id.startswith("after-") for id in stored)


@pytest.mark.parametrize("example", ["sklearn_flask", "sklearn_fastapi"])
def test_the_scikit_learn_examples(store: Store, example: str) -> None:
    from sklearn.datasets import load_wine

    source = (Path(__file__).parent.parent / "examples" / f"{example}.py").read_text()
    server = ["gunicorn", "--bind"] if example == "sklearn_flask" else ["uvicorn", "--port"]
    address = "127.0.0.1:{port}" if example == "sklearn_flask" else "{port}"
    wine = load_wine()
    features = dict(zip(wine.feature_names, wine.data[0].tolist()))
    import httpx

    with served(store, example, source, *server, address, f"{example}:app") as port:
        body = features if example == "sklearn_flask" else [features, features]
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
    assert stored_ids(store)
    rows = store.rows()
    assert [row["inputs"] for row in rows] == [features] * (1 if example == "sklearn_flask" else 2)
    expected = answer.json()
    assert [row["outputs"] for row in rows] == ([expected] if example == "sklearn_flask" else expected)
