"""The page to type into, and the policy under which nothing runs in it but what stands there."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import cache
from pathlib import Path


@cache
def page() -> tuple[str, str]:
    """The page, and its content security policy."""
    text = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    hashes = {
        kind: b64encode(hashlib.sha256(found.encode()).digest()).decode()
        for kind in ("style", "script")
        for found in re.findall(rf"<{kind}>(.*?)</{kind}>", text, re.DOTALL)
    }
    allowed = "; ".join(f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items())
    closed = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return text, f"default-src 'none'; {allowed}; connect-src 'self'; img-src data:; {closed}"
