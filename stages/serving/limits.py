"""What one server takes: of a request, of a client, and of all of them together."""

from __future__ import annotations

BODY = 1 << 20
"""Bytes of a request's body."""
DEEP = 16
"""How deep lists and objects of a body stand within each other; ours go down to three."""
VALUES = 1 << 14
"""In a body: of many that are empty each costs a hundred times its bytes."""
PROMPT = 1 << 16
"""Characters of a request's prompts together: some seconds of reading, in slices. One text to score has as many."""
TOKENS = 8192
"""That one text may be asked for."""
CHOICES = 64
"""Texts that one request may ask for: as many as are computed at once."""
STOPS, STOP = 16, 256
"""Stop strings, and characters of one."""
LIKELIEST = 20
"""Tokens that may come with each, with their logarithms."""
LISTED = 1 << 18
"""Tokens that one answer lists with their logarithms, those listed beside each counted, too: some 8 MB of it."""
TEXTS = 256
"""On, of all requests together. A model computes 64 at once, the others wait; who asks for more may come back."""
SCORING = 16
"""Requests to score that wait for the one that is scored, and as many prompts that are to be echoed."""
CONNECTIONS = 1024
"""At once; an idle one takes some tens of kilobytes, and soon goes."""
REQUEST = 10.0
"""Seconds until a connection has sent the head of a request, the first or the next."""
READING = 10.0
"""Seconds that a body may take."""
PARTING = 2.0
"""Seconds for which what is left of a body that is too large is read and thrown away, so that its sender hears why."""
STUCK = 20.0
"""Seconds that a client may leave what is sent to it unread."""
ENDING = 30.0
"""Seconds for what is being written when the server is asked to end."""
SENDING = 1 << 16
"""Bytes for one client that the system holds: what does not read is noticed, and a thousand do not take gigabytes."""
PUBLISHED = 0.03
"""Seconds between two looks at what was written: for 64 clients an event per token would cost more than the token."""
LOOKED, LOOKED_AFAR = 2.0, 30.0
"""Seconds between two looks at which models are champions, in a store, and in one with a remote, which is asked."""
AGAIN = 60.0
"""Seconds after which a model that could not be read is tried again."""
