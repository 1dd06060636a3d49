"""What schemathesis has to be told of this service beside its schema. Loaded by its own process."""

import schemathesis

# A piece of a resumable upload is plain bytes.
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
