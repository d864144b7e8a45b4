class SwitchboardError(Exception):
    """What the server refused, or what became of the session. Programs read `code`."""

    def __init__(self, code: str, message: str = "", retry_after_ms: "int | None" = None):
        super().__init__(message or code)
        self.code = code
        self.retry_after_ms = retry_after_ms
