"""What a flow raises when a stage fails."""


class StageFailedError(RuntimeError):
    """A DVC stage ended with an error.

    Attributes:
        stage: Its name.
        kind: Class name of svd's error, or "exit <code>" if the process said nothing.
    """

    def __init__(self, stage: str, kind: str, detail: str) -> None:
        super().__init__(f"stage {stage} failed ({kind}): {detail}")
        self.stage = stage
        self.kind = kind


class NotApprovedError(RuntimeError):
    """Whoever was asked to approve a promotion said no."""
