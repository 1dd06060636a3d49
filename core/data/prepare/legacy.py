"""Fitted columns as versions of format 1 hold them: one fill, one mean and std, or the categories."""

from typing import Any


def upgraded(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns of a version of format 1 as format 2 has them."""
    return [
        {"name": column["name"], "kind": column["kind"], "operations": _operations(column)}
        for column in columns
    ]


def _operations(column: dict[str, Any]) -> list[dict[str, Any]]:
    """The order of format 1: fill, then spread or standardize."""
    operations: list[dict[str, Any]] = []
    fill, categories = column.get("fill"), column.get("categories")
    if isinstance(fill, str):
        operations.append({"type": "ImputedText", "value": fill})
    elif fill is not None:
        operations.append({"type": "Imputed", "values": [fill]})
    if categories is not None:
        values = [value if isinstance(value, str) else float(value) for value in categories]
        operations.append({"type": "Spread", "features": [{"categories": values, "width": len(values)}]})
    else:
        mean, std = column.get("mean", 0.0), column.get("std", 1.0)
        operations.append({"type": "Standardized", "means": [mean], "stds": [std]})
    return operations
