"""The table of faults covers the tests, and the tests the table."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()

#: Those that are to be survived, by number.
FAULTS = [
    "dup_message", "lost_message", "redis_kill9_idle", "redis_kill9_mid_job", "redis_down_submit",
    "redis_blackhole", "redis_snapshot_rollback", "worker_kill9", "child_kill9", "zombie_writer", "hoarding",
    "solo_guard", "sigterm_drain", "cancel_running", "cancel_race_complete", "hung_step", "clock_jump",
    "kill_mid_write", "kill_between_rename_and_row", "bitflip", "enospc", "resume_exact", "pickle_checkpoint",
    "safetensors_header_bomb", "pg_restart", "sqlite_two_writers", "migrate_while_old_runs", "zip_slip_set",
    "zip_bomb", "png_bomb", "text_field_flood", "slow_body", "resumable_upload", "json_depth", "param_bomb",
    "gpu_oom", "owner_matrix", "ssrf_set", "overload", "rate_limit_spoof",
]  # fmt: skip

ROW = re.compile(r"^\| (\d+) \| `(\w+)` \|[^|]+\|([^|]+)\| (\d+) \|$", re.MULTILINE)
ROWS = {
    name: (int(number), set(re.findall(r"`([^`]+)`", tests)), int(runs))
    for number, name, tests, runs in ROW.findall(PAGE)
}


def found_on_disk() -> dict[str, set[str]]:
    """`file::test` of each, by the fault that it is named after."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for fault in FAULTS:
                    if re.fullmatch(rf"test_{fault}(_.*)?", node.name):
                        where = path.relative_to(ROOT / "tests").as_posix()
                        found.setdefault(fault, set()).add(f"{where}::{node.name}")
    return found


def test_every_fault_of_the_table_has_its_number_and_was_run() -> None:
    assert ROWS
    assert len(ROWS) == len(re.findall(r"^\| \d+ \|", PAGE, re.MULTILINE)), "a row of the table is not read"
    for name, (number, _, runs) in ROWS.items():
        assert FAULTS[number - 1] == name
        assert runs > 0


def test_every_test_that_the_table_names_exists_and_every_one_that_exists_is_named() -> None:
    """A file without a test stands for all that bear the fault's name in it."""
    for name, on_disk in found_on_disk().items():
        assert name in ROWS, f"{name} has tests and no row"
        named = ROWS[name][1]
        assert not [one for one in on_disk if not {one, one.partition("::")[0]} & named]
    for name, (_, named, _) in ROWS.items():
        on_disk = found_on_disk().get(name, set())
        assert named <= on_disk | {one.partition("::")[0] for one in on_disk}
