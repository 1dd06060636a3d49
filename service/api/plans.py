"""`/v1/plans`: a dry run of a job; queues nothing."""

from litestar import Controller, post

from core.nets.parse import MAX_SPEC_BYTES
from modelyard.specs import JobSpec, Plan
from service.auth import Scope, needs
from service.bodies import AnyRequest, read_body, require_json
from service.parts import Wired
from service.schema import body
from service.submit import estimate, examine


class Plans(Controller):
    path = "/v1/plans"
    tags = ("jobs",)

    @post(opt=needs(Scope.TRAIN), status_code=200, operation_class=body("application/json", JobSpec))
    async def plan(self, request: AnyRequest, parts: Wired) -> Plan:
        """The body of a job, checked as a job is: every default filled in, every layer with its shape."""
        require_json(request)
        raw = await read_body(request, limit=MAX_SPEC_BYTES, timeout_s=parts.settings.chunk_timeout_s)
        submission = await examine(parts, request.user.owner, raw)
        plan = submission.checked.plan
        plan.estimated_seconds = await estimate(parts, submission)
        return plan
