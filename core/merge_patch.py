"""JSON Merge Patch: RFC 7396, https://www.rfc-editor.org/rfc/rfc7396, section 2."""

from typing import Any


def merge_patch(target: Any, patch: Any) -> Any:
    """What the patch makes of the target; neither is changed. Objects are merged, null takes a field out, and
    everything else, lists too, is put in place of what was there."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
