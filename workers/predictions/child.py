"""The process of one attempt at a batch prediction, top to bottom: load, count, answer part after part, join.

Preloaded in the fork server. It knows no database, no broker and no key, and dies when its pipe does.
"""

import faulthandler
import multiprocessing.connection
import os
import resource
import signal
import traceback
from pathlib import Path

import torch

from core.errors import Invalid, Unavailable
from core.nets import plugins
from core.nets.plugins import PluginError
from core.predict import Predictor
from core.storage.durable import Damaged, is_full
from modelyard.specs import JobErrorCode
from workers.crew import gpus_of, keep_gpu
from workers.predictions import messages
from workers.predictions.answers import Answering
from workers.predictions.joining import Layout, join
from workers.predictions.link import Link
from workers.predictions.messages import Answered, BatchOrder, Failed, FromDataset, FromUpload, Join, Opened
from workers.predictions.parts import write_parts
from workers.predictions.rows import open_rows
from workers.trainer import is_out_of_memory


class DiffersHere(Exception):
    """The version's golden samples come out otherwise on this machine."""


def main(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    # The supervisor ends a child by itself; a signal to the whole group must not come before that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.setpgid(0, 0)
    order = messages.decode_order(payload)
    link = Link(connection)
    try:
        run(order, link)
    except Exception as error:  # whatever it is, it must reach the owner
        link.send(_report_of(error))


def run(order: BatchOrder, link: Link) -> None:
    scratch = Path(order.scratch)
    scratch.mkdir(parents=True, exist_ok=True)
    device = _device(order)
    _bound_memory(order, device)
    answering = Answering(_load(order, device))
    rows = open_rows(order.rows, answering.manifest)
    link.send(Opened(rows.count))
    write_parts(order, link, answering, rows)
    link.send(Answered())
    pieces = link.wait_for(Join).pieces
    layout = Layout(order.format, answering.columns, answering.width, isinstance(order.rows, FromDataset))
    join(pieces, rows.count, layout, scratch, link)


def _device(order: BatchOrder) -> str:
    """Leaves this process, before it touches one, only the GPU of its slot."""
    count = torch.cuda.device_count() if order.use_gpu else 0
    if not count:
        return "cpu"
    keep_gpu(gpus_of(order.slots, count)[0], count)
    return "cuda"


def _load(order: BatchOrder, device: str) -> Predictor:
    """Raises DiffersHere, or what loading raises."""
    plugins.load(order.plugins)
    torch.set_num_threads(order.threads)
    torch.backends.cudnn.allow_tf32 = False  # too coarse for golden answers of a CPU
    predictor = Predictor.load(Path(order.manifest), Path(order.weights), device)
    difference = predictor.replay()
    if difference > predictor.manifest.tolerance:
        raise DiffersHere(
            f"the version's golden samples come out {difference:g} apart on this worker, "
            f"{predictor.manifest.tolerance:g} is allowed"
        )
    return predictor


def _bound_memory(order: BatchOrder, device: str) -> None:
    """The bytes of an upload are hostile: a row that would take all of the machine's memory takes none."""
    if (
        isinstance(order.rows, FromUpload) and device == "cpu"
    ):  # a driver maps terabytes that it never touches
        mapped_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = mapped_bytes + Path(order.weights).stat().st_size * 2 + order.rows.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _report_of(error: Exception) -> Failed:
    match error:
        case PluginError() | Unavailable():
            hint = "give every worker the packages that the version was trained with"
            return Failed(JobErrorCode.DEVICE_UNAVAILABLE, str(error), hint)
        case DiffersHere():
            return Failed(
                JobErrorCode.WEIGHTS_MISMATCH, str(error), "train the version again on this machine"
            )
        case Invalid():
            return Failed(
                JobErrorCode.DATASET_UNAVAILABLE, error.detail, "mend the rows, and send them again"
            )
        case Damaged():
            return Failed(JobErrorCode.INTERNAL, str(error), "post it again")
        case _ if is_out_of_memory(error):
            hint = "a row needs more memory than the worker has: leave it out, or make it smaller"
            return Failed(JobErrorCode.OUT_OF_MEMORY, str(error) or "out of memory", hint)
        case OSError() if is_full(error):
            return Failed(
                JobErrorCode.STORAGE_FULL, str(error), "free disk space on the worker, and post it again"
            )
    traceback.print_exception(error)
    return Failed(JobErrorCode.INTERNAL, f"{type(error).__name__}: {error}", "")
