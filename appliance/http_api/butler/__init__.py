"""Butler's REST calls (``/v4/...``), with Butler's answers.

Not for: our own calls, whose errors are problem details (RFC 9457).
"""
