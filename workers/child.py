"""The process of one attempt: what it does with its order, and how it tells what went wrong.

Preloaded in the fork server. It knows no database, no broker and no key; it gets its order as bytes, sends
reports up its pipe, and dies when the pipe does.
"""

import faulthandler
import multiprocessing.connection
import os
import signal
import threading
import time
import traceback

import torch._dynamo  # noqa: F401 - the first optimizer imports it anyway, for seconds: here it is paid once
import torchvision  # noqa: F401 - preloaded for the nets and transforms

from core.errors import Invalid
from core.nets.plugins import PluginError
from core.nets.pretrained import WeightsMismatch
from core.storage.durable import is_full
from modelyard.specs import JobErrorCode
from workers import messages
from workers.attempt import Attempt
from workers.crew import is_left_alone
from workers.cursor import NonFiniteLoss
from workers.data_workers import DataWorkers
from workers.link import Link, QuietLink
from workers.messages import Failed, Order, WentAstray
from workers.resolving import NoDevice
from workers.running import TooLarge
from workers.saving import StorageFull
from workers.trainer import is_out_of_memory

FREE_SPACE = "free disk space on the worker, and post the job again"

#: A rank whose peer is gone says nothing: the supervisor saw the death that counts, and ends it before that.
ALONE_S = 30.0


def main(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    # The supervisor stops a child over its pipe; a signal to the whole group must not come before that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # what the supervisor asks of a child that hangs
    os.setpgid(0, 0)  # with what it starts itself: all of it is ended at once
    order = messages.decode_order(payload)
    data_workers = DataWorkers(order.spec["trainer"].get("num_workers", 0), order.plugins)
    link = Link(connection) if order.rank == 0 else QuietLink(connection)  # starts a thread: after the forks
    try:
        Attempt(order, link, data_workers).run()
    except Exception as error:  # a job's own failure, whatever it is, must reach its owner
        if order.world > 1 and is_left_alone(error):
            traceback.print_exception(error)
            time.sleep(ALONE_S)
            os._exit(1)
        link.send(_report_of(error, order))
    if order.world > 1:
        threading.Event().wait()  # to be ended with the others: a rank that leaves is taken for a lost one


def _report_of(error: Exception, order: Order) -> Failed | WentAstray | messages.TooLarge:
    match error:
        case NoDevice():
            return Failed(JobErrorCode.DEVICE_UNAVAILABLE, str(error), "say device: auto or cpu")
        case PluginError():
            hint = "give the service and every worker the same packages and the same MODELYARD_PLUGINS"
            return Failed(JobErrorCode.DEVICE_UNAVAILABLE, str(error), hint)
        case Invalid():
            hint = "mend the dataset, or the job's transforms or prepare, and post it again"
            return Failed(JobErrorCode.DATASET_UNAVAILABLE, error.detail, hint)
        case WeightsMismatch():
            return Failed(JobErrorCode.WEIGHTS_MISMATCH, str(error), "correct the model's weights")
        case NonFiniteLoss() if not order.careful:
            return WentAstray(str(error))
        case NonFiniteLoss():
            return Failed(JobErrorCode.NON_FINITE_LOSS, str(error), error.hint)
        case TooLarge():
            return messages.TooLarge(error.pieces, error.data)
        case _ if is_out_of_memory(error):
            hint = "lower trainer.batch_size, or make the net smaller"
            return Failed(JobErrorCode.OUT_OF_MEMORY, str(error) or "out of memory", hint)
        case StorageFull():
            return Failed(JobErrorCode.STORAGE_FULL, str(error), FREE_SPACE)
        case OSError() if is_full(error):
            return Failed(JobErrorCode.STORAGE_FULL, str(error), FREE_SPACE)
    traceback.print_exception(error)
    return Failed(JobErrorCode.INTERNAL, f"{type(error).__name__}: {error}", "")
