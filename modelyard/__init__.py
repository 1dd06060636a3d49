"""What a user of Modelyard imports: the client, its errors, the structs of the wire.

The service and the workers import `modelyard.specs` through this package, so the client and its HTTP
library are loaded on the first use of a name and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard import errors, specs
    from modelyard.client import AsyncClient, Client
    from modelyard.errors import ApiError, JobFailed, ModelyardError, TransportError
    from modelyard.resources.jobs import AsyncJobHandle, JobHandle
    from modelyard.specs import Event, Job, JobSpec, ProgressUpdate

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncJobHandle",
    "Client",
    "Event",
    "Job",
    "JobFailed",
    "JobHandle",
    "JobSpec",
    "ModelyardError",
    "ProgressUpdate",
    "TransportError",
    "errors",
    "specs",
]

_HOME_OF = {
    "ApiError": "modelyard.errors",
    "AsyncClient": "modelyard.client",
    "AsyncJobHandle": "modelyard.resources.jobs",
    "Client": "modelyard.client",
    "Event": "modelyard.specs",
    "Job": "modelyard.specs",
    "JobFailed": "modelyard.errors",
    "JobHandle": "modelyard.resources.jobs",
    "JobSpec": "modelyard.specs",
    "ModelyardError": "modelyard.errors",
    "ProgressUpdate": "modelyard.specs",
    "TransportError": "modelyard.errors",
}


def __getattr__(name: str) -> object:
    if name in ("errors", "specs"):
        return import_module(f"modelyard.{name}")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'modelyard' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
