"""What a child says of an error that ends its job."""

import pytest
import torch

from modelyard.specs import JobErrorCode
from workers.child import _report_of
from workers.messages import Failed, Order

ORDER = Order("job", 1, {}, "", "", "", "", 1, False, {}, None)


def test_a_cpu_without_memory_is_out_of_memory_and_nothing_else() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    report = _report_of(caught.value, ORDER)
    assert isinstance(report, Failed)
    assert report.code == JobErrorCode.OUT_OF_MEMORY
    assert "batch_size" in report.hint
