"""Several optimizers stepped as one, for nets whose parameters don't all suit one: Muon beside AdamW."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class JointOptimizer(Optimizer):
    """Each parameter belongs to one of `optimizers`. Their groups stand in `param_groups`, in order, and are
    the same objects: a schedule that sets a learning rate here sets it there."""

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers = optimizers
        super().__init__([group for each in optimizers for group in each.param_groups], {})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """`closure` is in torch's signature alone: none of these takes one."""
        for optimizer in self.optimizers:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self._share_groups()  # loading gives each new ones

    def _share_groups(self) -> None:
        self.param_groups = [group for each in self.optimizers for group in each.param_groups]
