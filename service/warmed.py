"""Imported by the fork server alone: what plans and explanations need, paid once for all children."""

import gc
import os

import torch

import service.explainer
import service.helper
import service.inference.processes.work
import service.planner  # noqa: F401 - what the children run and answer
from core.nets.warm import warm

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # read at its first use
torch.set_num_threads(1)  # a process that forks must have no threads of its own
warm()
gc.collect()
gc.freeze()  # the children share these pages for as long as nobody writes to them
