"""API keys as text: `mdy_<22 base62>_<checksum>`. The checksum refuses typing errors unasked."""

import hashlib
import re
import secrets
import string
import zlib

from core.errors import Unauthenticated

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_LENGTH = 22  # 62**22 > 2**128
CHECKSUM_LENGTH = 6  # 62**6 > 2**32

PATTERN = re.compile(rf"mdy_([0-9A-Za-z]{{{SECRET_LENGTH}}})_([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})")


def new_key() -> str:
    secret = _base62(secrets.randbits(128), SECRET_LENGTH)
    return f"mdy_{secret}_{_checksum(secret)}"


def digest_of(key: str) -> bytes:
    """SHA-256 of a well-formed key: what the database holds. Raises Unauthenticated for anything else."""
    match = PATTERN.fullmatch(key)
    if match is None or _checksum(match[1]) != match[2]:
        raise Unauthenticated("This is no key of ours: expected mdy_…, exactly as it was shown once.")
    return hashlib.sha256(key.encode()).digest()


def _checksum(secret: str) -> str:
    return _base62(zlib.crc32(secret.encode()), CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
