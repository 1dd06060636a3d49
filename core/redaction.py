"""Keys and passwords out of whatever is logged, or said in an error."""

import re

#: Keys and the secrets of webhooks, also misspelt, cut or in another case; user and password of a URL.
_KEY = re.compile(r"(mdy|whsec)_[0-9A-Za-z_+/=-]{6,}", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)")


def redact(text: str) -> str:
    if "_" not in text and "@" not in text:
        return text
    return _PASSWORD.sub("…", _KEY.sub(r"\1_…", text))
