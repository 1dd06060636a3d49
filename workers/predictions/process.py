"""The child of one batch prediction, as its supervisor sees it."""

import multiprocessing.connection

from workers.children import Forked
from workers.predictions import messages
from workers.predictions.messages import AnyCommand, AnyReport, BatchOrder


def _run(connection: multiprocessing.connection.Connection, payload: bytes) -> None:
    from workers.predictions.child import main  # preloaded: a look-up, not an import

    main(connection, payload)


class BatchChild(Forked[AnyReport, AnyCommand]):
    def __init__(self, order: BatchOrder) -> None:
        name = f"predict-{order.batch}"
        super().__init__(_run, messages.encode(order), name, messages.decode_report)
