"""`python -m tests.damaged_reader FOLDER MEMORY_BYTES`: reads one file after the other as ingest does, under
its limits, in one process, so that thousands cost no start of an interpreter each.

On standard input a line of JSON (kind, filename, number of bytes), then the bytes; on standard output the
code of the refusal, or `ok`.
"""

import json
import shutil
import sys
from pathlib import Path

from workers.ingest.limits import set_environment, set_limits

CPU_S = 3600


def main() -> None:
    folder, memory_bytes = Path(sys.argv[1]), int(sys.argv[2])
    set_environment()
    set_limits(memory_bytes, CPU_S)
    from core.data.images import load_image
    from core.errors import Invalid
    from workers.ingest.__main__ import _problem_of
    from workers.ingest.run import ingest

    for line in sys.stdin.buffer:
        kind, filename, size = json.loads(line)
        data = sys.stdin.buffer.read(size)
        scratch = folder / "scratch"
        scratch.mkdir()
        try:
            if kind == "image":
                load_image(data)
            else:
                (folder / "source").write_bytes(data)
                ingest(folder / "source", folder / "data.arrow", scratch, "auto", "{}", filename)
            outcome = "ok"
        except Invalid as error:
            outcome = error.code
        except Exception as error:
            outcome = _problem_of(error).code
        shutil.rmtree(scratch)
        (folder / "source").unlink(missing_ok=True)
        (folder / "data.arrow").unlink(missing_ok=True)
        print(outcome, flush=True)


if __name__ == "__main__":
    main()
