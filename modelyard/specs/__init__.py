"""Everything that crosses the wire, as msgspec structs. Standard library and msgspec only.

Structs a client sends refuse unknown fields and carry their bounds; structs a client reads accept
unknown fields, so an older client outlives a newer server.
"""

from modelyard.specs.aliases import (
    AliasMove,
    AliasUpdate,
    Compared,
    MoveKind,
    Mover,
    Requirement,
    RollbackRequest,
)
from modelyard.specs.batch_predictions import (
    BatchDataset,
    BatchFile,
    BatchPrediction,
    BatchProgress,
    BatchRequest,
    BatchState,
    BatchTransition,
)
from modelyard.specs.checkpoints import Checkpoint
from modelyard.specs.common import Page, Problem, ProblemError
from modelyard.specs.components import ComponentInfo, ParameterInfo
from modelyard.specs.datasets import (
    Dataset,
    DatasetSource,
    DatasetState,
    Feature,
    RowProblem,
    Sample,
    Samples,
    TorchvisionSource,
)
from modelyard.specs.events import Event, Metric, ProgressUpdate
from modelyard.specs.jobs import (
    BestCheckpoint,
    ForkedFrom,
    ForkRequest,
    Job,
    JobDataset,
    JobError,
    JobErrorCode,
    JobState,
    Progress,
    Registered,
    Transition,
    Wanted,
)
from modelyard.specs.jobspec import CheckpointPolicy, Component, EarlyStopping, Ema, JobSpec, Split, Trainer
from modelyard.specs.models import (
    ClassScores,
    Evaluation,
    Lineage,
    Model,
    ModelVersion,
    Signature,
    Tensor,
)
from modelyard.specs.plans import Layer, Plan, ResolvedTransforms
from modelyard.specs.predictions import (
    MAX_INSTANCES,
    Explanation,
    Method,
    Prediction,
    PredictReply,
    PredictRequest,
    ScoredLabel,
)
from modelyard.specs.suspects import Suspect, Suspects
from modelyard.specs.uploads import DatasetUpload, Upload, UploadRequest

__all__ = [
    "MAX_INSTANCES",
    "AliasMove",
    "AliasUpdate",
    "BatchDataset",
    "BatchFile",
    "BatchPrediction",
    "BatchProgress",
    "BatchRequest",
    "BatchState",
    "BatchTransition",
    "BestCheckpoint",
    "Checkpoint",
    "CheckpointPolicy",
    "ClassScores",
    "Compared",
    "Component",
    "ComponentInfo",
    "Dataset",
    "DatasetSource",
    "DatasetState",
    "DatasetUpload",
    "EarlyStopping",
    "Ema",
    "Evaluation",
    "Event",
    "Explanation",
    "Feature",
    "ForkRequest",
    "ForkedFrom",
    "Job",
    "JobDataset",
    "JobError",
    "JobErrorCode",
    "JobSpec",
    "JobState",
    "Layer",
    "Lineage",
    "Method",
    "Metric",
    "Model",
    "ModelVersion",
    "MoveKind",
    "Mover",
    "Page",
    "ParameterInfo",
    "Plan",
    "PredictReply",
    "PredictRequest",
    "Prediction",
    "Problem",
    "ProblemError",
    "Progress",
    "ProgressUpdate",
    "Registered",
    "Requirement",
    "ResolvedTransforms",
    "RollbackRequest",
    "RowProblem",
    "Sample",
    "Samples",
    "ScoredLabel",
    "Signature",
    "Split",
    "Suspect",
    "Suspects",
    "Tensor",
    "TorchvisionSource",
    "Trainer",
    "Transition",
    "Upload",
    "UploadRequest",
    "Wanted",
]
