"""`python -m workers.ingest SOURCE OUT_DIR …`: one upload -> Arrow and a manifest, or a problem.

Exit 0 with `data.arrow` and `manifest.json`, exit 1 with `problem.json`; nothing else stays in OUT_DIR.
"""

import argparse
import errno
import shutil
import sys
import traceback
from pathlib import Path

from core.errors import Invalid, ModelyardError
from workers.ingest.limits import set_environment, set_limits
from workers.ingest.problems import write_problem
from workers.orphans import end_with_parent

DATA_FILE = "data.arrow"
MANIFEST_FILE = "manifest.json"
PROBLEM_FILE = "problem.json"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.end_with_parent:
        end_with_parent()
    out_dir: Path = arguments.out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    scratch = out_dir / "scratch"
    scratch.mkdir(exist_ok=True)
    set_environment()
    set_limits(arguments.memory_bytes, arguments.cpu_seconds)
    problem: ModelyardError | None = None
    try:
        # Chosen here: the libraries read the environment, and load under the limits just set.
        from workers.ingest.run import ingest

        manifest = ingest(
            arguments.source,
            out_dir / DATA_FILE,
            scratch,
            arguments.format,
            arguments.options,
            arguments.filename,
        )
        (out_dir / MANIFEST_FILE).write_bytes(manifest)
    except Exception as error:
        problem = _problem_of(error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if problem is None:
        return 0
    (out_dir / DATA_FILE).unlink(missing_ok=True)
    (out_dir / MANIFEST_FILE).unlink(missing_ok=True)
    write_problem(problem, out_dir / PROBLEM_FILE)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.ingest", description="An upload to Arrow.")
    parser.add_argument("source", type=Path)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--format", default="auto")
    parser.add_argument("--options", default="{}", help="JSON object")
    parser.add_argument("--filename", default="upload", help="what the user called the file")
    parser.add_argument("--memory-bytes", type=int, required=True, help="address space of this process")
    parser.add_argument("--cpu-seconds", type=int, required=True)
    parser.add_argument("--end-with-parent", action="store_true", help="end when standard input does")
    return parser


def _problem_of(error: Exception) -> ModelyardError:
    match error:
        case ModelyardError():
            return error
        case MemoryError():
            return Invalid(
                "reading the upload took more memory than ingest may use; make its largest file or row "
                "smaller, or raise MODELYARD_INGEST_MEMORY_BYTES",
                code="out_of_memory",
            )
        case OSError(errno=errno.EFBIG):
            return Invalid("the upload holds more data than ingest may write; split it", code="too_large")
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Invalid("the disk is full; free space and upload again", code="storage_full")
        case _:
            traceback.print_exception(error, file=sys.stderr)
            return Invalid(f"ingest failed on this upload ({type(error).__name__})", code="internal")


if __name__ == "__main__":
    sys.exit(main())
