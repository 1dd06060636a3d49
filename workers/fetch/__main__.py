"""`python -m workers.fetch SOURCE OUT_DIR …`: a source as JSON -> a file to ingest, or a problem.

Exit 0 with the file and `fetched.json`, exit 1 with `problem.json`; nothing else stays in OUT_DIR.
"""

import argparse
import shutil
import sys
import traceback
from pathlib import Path

import msgspec

from core.errors import ModelyardError, Unavailable
from modelyard.specs import TorchvisionSource
from workers.ingest.problems import write_problem
from workers.orphans import end_with_parent

FETCHED_FILE = "fetched.json"
PROBLEM_FILE = "problem.json"


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    if arguments.end_with_parent:
        end_with_parent()
    out_dir: Path = arguments.out_dir
    root = out_dir / "torchvision"
    root.mkdir(parents=True)
    try:
        # Chosen here: torch takes seconds, and the worker's end is to be noticed meanwhile.
        from workers.fetch.download import Downloads
        from workers.fetch.run import fetch

        source = msgspec.json.decode(arguments.source, type=TorchvisionSource)
        downloads = Downloads(source.dataset, arguments.mirror, arguments.max_bytes, arguments.min_free_bytes)
        fetched = fetch(source, root, out_dir, downloads)
    except Exception as error:
        if not isinstance(error, ModelyardError):
            traceback.print_exception(error, file=sys.stderr)
            error = Unavailable(f"fetching failed ({type(error).__name__}: {error})", code="fetch_failed")
        for path in out_dir.glob("fetched.*"):
            path.unlink()
        write_problem(error, out_dir / PROBLEM_FILE)
        return 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    (out_dir / FETCHED_FILE).write_bytes(msgspec.json.encode(fetched))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workers.fetch", description="A source to an upload.")
    parser.add_argument("source", help="JSON")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--mirror", help="base URL in place of torchvision's own")
    parser.add_argument("--max-bytes", type=int, required=True, help="downloaded, of all files together")
    parser.add_argument("--min-free-bytes", type=int, required=True, help="left free on the disk")
    parser.add_argument("--end-with-parent", action="store_true", help="end when standard input does")
    return parser


if __name__ == "__main__":
    sys.exit(main())
