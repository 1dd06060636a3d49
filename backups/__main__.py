"""`python -m backups backup FILE` and `restore FILE`, of the configured database and storage."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from sqlalchemy.exc import DBAPIError

from backups import Refused
from backups.backup import back_up
from backups.progress import Progress
from backups.restore import restore
from core.settings import Settings, settings_or_exit

OK, FAILED, INTERRUPTED = 0, 1, 130


def main(tokens: Sequence[str]) -> int:
    settings = settings_or_exit()
    asked = _parser().parse_args(tokens)
    signal.signal(signal.SIGTERM, _stop)
    file = Path(asked.file).absolute()
    try:
        match asked.command:
            case "backup":
                print(_backed_up(settings, file, asked))
            case _:
                print(_restored(settings, file, asked))
    except KeyboardInterrupt:
        return _complain(f"stopped; {_left_by(asked.command)}", INTERRUPTED)
    except (Refused, OSError) as error:
        return _complain(str(error), FAILED)
    except DBAPIError as error:
        return _complain(f"the database does not answer: {error.orig}", FAILED)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="modelyard", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("backup")
    making.add_argument("file")
    making.add_argument("--rows-only", action="store_true")
    making.add_argument("--allow-missing", action="store_true")
    taking = commands.add_parser("restore")
    taking.add_argument("file")
    taking.add_argument("--force", action="store_true")
    return parser


def _backed_up(settings: Settings, file: Path, asked: argparse.Namespace) -> str:
    with Progress() as progress:
        made = back_up(
            settings,
            file,
            progress,
            with_files=not asked.rows_only,
            allow_missing=asked.allow_missing,
        )
    for word, keys in (("not in storage", made.missing), ("not what its row says", made.damaged)):
        for key in keys:
            print(f"modelyard: {word}: {key}", file=sys.stderr)
    files = "the rows alone" if asked.rows_only else f"the rows and {made.num_files:,} files"
    return f"{file}: {files}, {made.num_bytes:,} bytes"


def _restored(settings: Settings, file: Path, asked: argparse.Namespace) -> str:
    with Progress() as progress:
        done = restore(settings, file, progress, is_forced=asked.force)
    lines = [
        f"restored the rows and {done.num_files:,} files of {done.about.created_at:%Y-%m-%d %H:%M:%S} UTC",
    ]
    if not done.about.has_files:
        lines.append(
            f"the backup has rows alone: their files must be in {settings.resolved_storage_url()}",
        )
    if done.num_requeued:
        lines.append(f"{done.num_requeued} that ran then are queued, and go on from their last checkpoints")
    lines.append("the API keys are those of the backup")
    return "\n".join(lines)


def _left_by(command: str) -> str:
    if command == "backup":
        return "nothing was written"
    return "the rows are as they were; files that had come already stay, and --force starts again"


def _complain(message: str, status: int) -> int:
    print(f"modelyard: {message}", file=sys.stderr)
    return status


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
