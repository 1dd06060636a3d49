"""`python -m workers`: one worker process for `MODELYARD_POOL` with `MODELYARD_SLOTS` slots."""

import sys

from core.settings import settings_or_exit
from workers.app import app


def main() -> None:
    settings = settings_or_exit()
    sys.argv[0] = "modelyard worker"
    app.worker_main(
        [
            "worker",
            "--pool=threads",
            f"--concurrency={settings.slots}",
            f"--queues={settings.pool}",
            f"--hostname={settings.pool}@%h",
            f"--loglevel={settings.log_level}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    main()
