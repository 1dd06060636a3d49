"""Signatures of the Standard Webhooks specification (standardwebhooks.com, v1: HMAC-SHA256)."""

import base64
import hashlib
import hmac
import secrets

#: The specification asks for 24 to 64.
SECRET_BYTES = 32
PREFIX = "whsec_"


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def shown(secret: bytes) -> str:
    """As the receiver is given it, once."""
    return PREFIX + base64.b64encode(secret).decode()


def signed_headers(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """`timestamp` is that of this try, in seconds since 1970: receivers refuse what is too old."""
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }
