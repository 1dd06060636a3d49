"""The process of one attempt: what it does with its order, and how it tells what went wrong.

Preloaded in the fork server. It knows no database, no broker and no key; it gets its order as bytes, sends
reports up its pipe, and dies when the pipe does.
"""

import errno
import multiprocessing.connection
import signal
import traceback

import torch
import torch._dynamo  # the first optimizer imports it anyway, for seconds: here it is paid once
import torchvision  # noqa: F401 - preloaded for the nets and transforms

from core.errors import Invalid
from core.nets.plugins import PluginError
from core.nets.pretrained import WeightsMismatch
from modelyard.specs import JobErrorCode
from workers import messages
from workers.attempt import Attempt
from workers.link import Link
from workers.messages import Failed, Order, WentAstray
from workers.resolving import NoDevice
from workers.trainer import NonFiniteLoss


def main(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    # The supervisor stops a child over its pipe; a signal to the whole group must not come before that.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = Link(connection)
    order = messages.decode_order(payload)
    try:
        Attempt(order, link).run()
    except Exception as error:  # a job's own failure, whatever it is, must reach its owner
        link.send(_report_of(error, order))


def _report_of(error: Exception, order: Order) -> Failed | WentAstray:
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
            hint = "lower the learning rate, normalise the inputs, or look for bad rows in the dataset"
            return Failed(JobErrorCode.NON_FINITE_LOSS, str(error), hint)
        case torch.OutOfMemoryError() | MemoryError():
            hint = "lower trainer.batch_size, or make the net smaller"
            return Failed(JobErrorCode.OUT_OF_MEMORY, str(error) or "out of memory", hint)
    traceback.print_exception(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failed(
            JobErrorCode.STORAGE_FULL, f"{type(error).__name__}: {error}", "free disk space on the worker"
        )
    return Failed(JobErrorCode.INTERNAL, f"{type(error).__name__}: {error}", "")
