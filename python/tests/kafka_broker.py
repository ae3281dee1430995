"""One real Kafka broker that is its own controller, from the jars that `tests/services/install.sh kafka` puts into .cache."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
JARS = ROOT / ".cache" / "kafka"
CLUSTER_ID = "cHJlZGxvZy10ZXN0cy0wMQ"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=CONTROLLER://127.0.0.1:{controller},PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.dirs={data}
"""


@contextmanager
def broker(directory: Path) -> Iterator[str]:
    """Runs it with its data in `directory`, and gives its `host:port` when it answers."""
    assert JARS.is_dir(), "Kafka is not installed: run tests/services/install.sh kafka"
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        controller, port = one.getsockname()[1], other.getsockname()[1]
    properties = directory / "server.properties"
    properties.write_text(PROPERTIES.format(controller=controller, port=port, data=directory / "data"))
    logging = ROOT / "tests" / "services" / "kafka" / "log4j2.properties"
    java = ["java", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Dlog4j2.configurationFile={logging}", "-cp", f"{JARS}/*"]
    storage = ["kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", str(properties)]
    subprocess.run([*java, *storage], check=True, capture_output=True)
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 90
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
