"""Jobs: submit a training, follow it, stop it."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeAlias

from modelyard.errors import JobFailed
from modelyard.resources import following
from modelyard.resources.following import Happening
from modelyard.specs import Checkpoint, Job, JobSpec, JobState, Metric, Plan
from modelyard.transport import calls
from modelyard.transport.calls import path
from modelyard.transport.resource import R, Resource, operation, streaming
from modelyard.transport.story import AsyncRunner, Call, Story, Stream, SyncRunner

Spec: TypeAlias = Mapping[str, Any] | JobSpec


class Jobs(Resource[R]):
    """`client.jobs`."""

    @operation
    def submit(self, spec: Spec, idempotency_key: str | None = None) -> Story["JobHandleOf[R]"]:
        """Queue a training. Raises Invalid with every error of the spec, each with its JSON pointer.

        The same `idempotency_key` within 24 h gives the job that is there instead of a second one;
        without one, a key is made up, so that a call repeated after a lost connection trains once.
        """
        call = calls.send_json(
            "POST",
            "/v1/jobs",
            spec,
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
            is_repeatable=True,
        )
        job = yield from self._fetch(call, Job)
        return JobHandleOf(self._runner, job)

    @operation
    def plan(self, spec: Spec) -> Story[Plan]:
        """What the spec would train, without queueing it. Raises Invalid like `submit`."""
        call = calls.send_json("POST", "/v1/plans", spec, is_repeatable=True)
        return (yield from self._fetch(call, Plan))

    @operation
    def get(self, job_id: str, wait_s: float | None = None) -> Story[Job]:
        """With `wait_s` (at most 30) the answer is held until the job changes."""
        return (yield from self._get(job_id, wait_s))

    @operation
    def handle(self, job_id: str) -> Story["JobHandleOf[R]"]:
        """A job that was submitted earlier, to follow it."""
        return JobHandleOf(self._runner, (yield from self._get(job_id, None)))

    @streaming
    def list(self, state: str | None = None, name: str | None = None) -> Stream[Job]:
        """Newest first; only those in `state`, only those that train the model `name`."""
        yield from self._pages(calls.get("/v1/jobs", state=state, name=name), Job)

    @operation
    def cancel(self, job_id: str) -> Story[Job]:
        """The job as it then is: a running one ends in `cancelled` soon after."""
        return (yield from self._fetch(_cancel(job_id), Job))

    @operation
    def delete(self, job_id: str) -> Story[None]:
        """Raises Conflict while the job is not terminal."""
        yield from self._send(calls.delete(path("/v1/jobs/{}", job_id)))

    def _get(self, job_id: str, wait_s: float | None) -> Story[Job]:
        call = calls.held(calls.get(path("/v1/jobs/{}", job_id)), wait_s)
        return (yield from self._fetch(call, Job))


class JobHandleOf(Resource[R], Generic[R]):
    """One job: `id`, and `job` as it was last seen."""

    def __init__(self, runner: R, job: Job) -> None:
        super().__init__(runner)
        self.job = job

    @property
    def id(self) -> str:
        return self.job.id

    def __repr__(self) -> str:
        return f"<job {self.id} {self.job.state}>"

    @operation
    def refresh(self) -> Story[Job]:
        """The job as it is now."""
        self.job = yield from self._fetch(calls.get(path("/v1/jobs/{}", self.id)), Job)
        return self.job

    @operation
    def wait(self, timeout_s: float | None = None, raise_on_failure: bool = True) -> Story[Job]:
        """Returns the job once it is terminal; a cancelled one is no error.

        Raises JobFailed where it failed, unless told not to; WaitTimeout after `timeout_s`, and the
        job goes on. A service that restarts in between is waited for, a minute at most.
        """
        self.job = yield from following.wait_until_terminal(self.id, timeout_s)
        if raise_on_failure and self.job.state is JobState.FAILED:
            raise JobFailed(self.job)
        return self.job

    @streaming
    def watch(self, after: int = 0) -> Stream[Happening]:
        """What happens, from the first event (or the one after number `after`) to the end of the job.

        Numbered `Event`s come each once and in order, whatever breaks in between; a `ProgressUpdate` says
        how the job stands now. Ends when the job is terminal.
        """
        yield from following.watch(self.id, after)

    @operation
    def cancel(self) -> Story[Job]:
        """The job as it then is: a running one ends in `cancelled` soon after."""
        self.job = yield from self._fetch(_cancel(self.id), Job)
        return self.job

    @streaming
    def metrics(self, names: Sequence[str] | None = None) -> Stream[Metric]:
        """Every number the job reported, or only those of `names`, by step."""
        joined = ",".join(names) if names is not None else None
        yield from self._pages(calls.get(path("/v1/jobs/{}/metrics", self.id), names=joined), Metric)

    @streaming
    def checkpoints(self) -> Stream[Checkpoint]:
        """What the job saved and what is still kept of it."""
        yield from self._pages(calls.get(path("/v1/jobs/{}/checkpoints", self.id)), Checkpoint)


JobHandle: TypeAlias = JobHandleOf[SyncRunner]
AsyncJobHandle: TypeAlias = JobHandleOf[AsyncRunner]


def _cancel(job_id: str) -> Call:
    return Call(method="POST", path=path("/v1/jobs/{}/cancel", job_id))
