"""`python -m deploy.local`: the embedded stack. Broker, migrations, service, workers under one process.

It stays until SIGTERM or Ctrl-C, starts again what dies, and then ends all of it in order: workers, which
save their work, then the service, then the broker.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from core.settings import Settings, settings_or_exit
from deploy.address import is_ready, take_port, url_of
from deploy.broker import answers_ping, broker_command, choose_socket, find_broker, remove_socket
from deploy.home import CannotStart, Lock, hold, prepare_home
from deploy.parts import Part, StopRequested, block_signals, in_words, pause, stop

BROKER_WAIT_S = 10.0
MIGRATION_WAIT_S = 300.0
READY_WAIT_S = 120.0
WORKER_GRACE_S = 30.0
SERVICE_GRACE_S = 30.0
BROKER_GRACE_S = 5.0


def main() -> int:
    block_signals()
    os.umask(0o077)
    settings = settings_or_exit()
    home = settings.resolved_home()
    try:
        prepare_home(home)
        with hold(home) as lock:
            Stack(settings, home, lock).run()
    except CannotStart as problem:
        print(f"modelyard: {problem}", file=sys.stderr)
        return 1
    return 0


class Stack:
    def __init__(self, settings: Settings, home: Path, lock: Lock) -> None:
        self.settings = settings
        self.home = home
        self.lock = lock
        self.port = take_port(settings.host, settings.port)
        self.url = url_of(settings.host, self.port)
        self.socket = None if settings.broker_url else choose_socket(home)
        self.broker: list[Part] = []
        self.service: list[Part] = []
        self.workers: list[Part] = []

    def run(self) -> None:
        """Returns when asked to stop, everything ended. Raises CannotStart, everything ended likewise."""
        try:
            self.lock.tell(self.url, is_ready=False)
            self._start()
            self.lock.tell(self.url, is_ready=True)
            print(self._greeting(), flush=True)
            self._keep()
        except StopRequested:
            print("stopping", flush=True)
        finally:
            stop(self.workers, WORKER_GRACE_S)
            stop(self.service, SERVICE_GRACE_S)
            stop(self.broker, BROKER_GRACE_S)
            if self.socket:
                remove_socket(self.socket, self.home)

    def _start(self) -> None:
        if self.socket:
            self._start_broker(self.socket)
        self._migrate()
        service = self._part("service", "-m", "service")
        self.service.append(service)
        service.start()
        pool = "gpu" if has_gpu() else "cpu"
        for name, more in (
            (f"worker-{pool}", {"MODELYARD_POOL": pool}),
            ("worker-data", {"MODELYARD_POOL": "data", "MODELYARD_SLOTS": "1"}),
        ):
            worker = self._part(name, "-m", "workers", **more)
            self.workers.append(worker)
            worker.start()
        self._wait_ready(service)

    def _start_broker(self, socket_path: Path) -> None:
        command = broker_command(find_broker(), socket_path)
        broker = Part("broker", command, os.environ, self._log("broker"))
        self.broker.append(broker)
        broker.start()
        deadline = time.monotonic() + BROKER_WAIT_S
        while not answers_ping(socket_path):
            self._refuse_dead(deadline, f"the broker did not answer PING on {socket_path}", broker)

    def _migrate(self) -> None:
        migration = self._part("migrations", "-m", "migrations")
        migration.start()
        deadline = time.monotonic() + MIGRATION_WAIT_S
        try:
            while (status := migration.ended()) is None:
                if time.monotonic() > deadline:
                    raise CannotStart(f"the migrations took over {MIGRATION_WAIT_S:.0f} s{_tail(migration)}")
                pause(0.5)
        finally:
            stop([migration], grace_s=5)
        if status != 0:
            raise CannotStart(f"the migrations failed ({in_words(status)}){_tail(migration)}")

    def _wait_ready(self, service: Part) -> None:
        deadline = time.monotonic() + READY_WAIT_S
        while not is_ready(self.url):
            self._refuse_dead(deadline, f"{self.url}/health/ready did not answer 200", service, *self.workers)

    def _refuse_dead(self, deadline: float, complaint: str, *needed: Part) -> None:
        """One turn of waiting for parts to come up; those that end first, or last too long, end the start."""
        for part in (*self.broker, *needed):
            if (status := part.ended()) is not None:
                raise CannotStart(f"{part.name} ended while starting ({in_words(status)}){_tail(part)}")
        if time.monotonic() > deadline:
            raise CannotStart(complaint + _tail(needed[0]))
        pause(0.05)

    def _keep(self) -> None:
        while True:
            for part in (*self.broker, *self.service, *self.workers):
                part.revive()
            pause(0.5)

    def _part(self, name: str, *arguments: str, **more: str) -> Part:
        environment = {
            # Threads that wait for each other sleep instead of spin: service, workers and whatever else runs
            # share these cores (seen on two cores beside two busy processes: 17 s an epoch of digits
            # spinning, 1 s sleeping; alone on the machine 0.13 s and 0.3 s).
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            "MODELYARD_HOME": str(self.home),
            "MODELYARD_HOST": self.settings.host,
            "MODELYARD_PORT": str(self.port),
            "MODELYARD_BROKER_URL": f"unix://{self.socket}" if self.socket else str(self.settings.broker_url),
            "PYTHONUNBUFFERED": "1",
            "PYTHONSAFEPATH": "1",  # a folder `core` or `service` where the user stands is not ours
            **more,
        }
        return Part(name, [sys.executable, *arguments], environment, self._log(name))

    def _log(self, name: str) -> Path:
        return self.home / "logs" / f"{name}.log"

    def _greeting(self) -> str:
        key_file = self.home / "admin.key"
        has_keys = self.settings.auth == "on"
        key = f'-H "Authorization: Bearer $(cat {shlex.quote(str(key_file))})" ' if has_keys else ""
        return "\n".join(
            [
                f"Modelyard is ready at {self.url}",
                f"  key    {key_file if has_keys else 'none needed (MODELYARD_AUTH=off)'}",
                f"  logs   {self.home / 'logs'}",
                "Ask how it is, push a small table, list what is there:",
                f"  curl -s {self.url}/health/ready",
                "  (echo x,y; seq 1 200 | awk '{print $1 \",\" 2 * $1 + 1}') | "
                f"curl -s {key}-T - '{self.url}/v1/datasets/line?format=table'",
                f"  curl -s {key}{self.url}/v1/datasets",
                "Ctrl-C stops it.",
            ]
        )


def has_gpu() -> bool:
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        found = subprocess.run([program, "-L"], capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return False
    return found.returncode == 0 and b"GPU 0" in found.stdout


def _tail(part: Part) -> str:
    return f"; the end of {part.log}:\n{part.log_tail()}"


if __name__ == "__main__":
    sys.exit(main())
