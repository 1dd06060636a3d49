"""A loaded version whose net is in an inference process."""

from torch import Tensor

from core.predict import Predictor, Row
from service.inference.batcher import Batcher, OnForward
from service.inference.processes.pool import Placed
from service.inference.served import Served
from service.inference.statistics import VersionName


class Elsewhere(Served):
    """`predictor` has no net: it reads rows and words answers."""

    def __init__(
        self, name: VersionName, predictor: Predictor, placed: Placed, on_forward: OnForward
    ) -> None:
        self.name = name
        self.predictor, self.size_bytes, self.is_quick = predictor, placed.size_bytes, False
        self.batcher: Batcher[Row, Tensor] = Batcher(placed.compute, on_forward=on_forward)
