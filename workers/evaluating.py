"""A split, measured with the weights that would be served."""

import torch

from core.nets.objective import loss_sum_and_count, meet
from workers.batches import Batches
from workers.cursor import quotient
from workers.training import Training


def evaluate(training: Training, batches: Batches, prefix: str) -> dict[str, float]:
    """`<prefix>_loss` and the measures over all rows: summed, counted, divided once."""
    net = training.served.eval()
    loss_sum, loss_count = torch.zeros(2, dtype=torch.float64, device=training.device)
    measures = training.measures(training.device)
    with torch.inference_mode():
        for batch in batches.in_order():
            with torch.autocast(
                training.device.type, training.autocast, enabled=training.autocast is not None
            ):
                outputs = net(*batch.inputs)
                value = training.loss(outputs, meet(outputs, batch.targets))
            batch_sum, count = loss_sum_and_count(training.loss, value, batch.targets, batch.rows)
            loss_sum += batch_sum
            loss_count += count
            measures.add(outputs, batch.targets)
            training.between()
    values = {"loss": quotient(loss_sum, loss_count), **measures.compute()}
    return {f"{prefix}_{name}": value for name, value in values.items()}
