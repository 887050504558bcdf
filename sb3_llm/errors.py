"""The one exception users of this package meet: what was given, what was expected, how to mend it."""


class SetupError(ValueError):
    """
    Something the user gave can't work, and this says what to give instead.

    Raised before any training starts. A ``ValueError``, as Stable-Baselines3 raises for its own bad arguments.

    :param given: what was found, with its size or shape
    :param expected: what would have worked
    :param mend: the change that makes it work
    """

    def __init__(self, given: str, expected: str, mend: str) -> None:
        super().__init__(f"{given.rstrip('.')}. Expected: {expected.rstrip('.')}. To mend it: {mend.rstrip('.')}.")
        self.parts = (given, expected, mend)

    def __reduce__(self) -> tuple[type["SetupError"], tuple[str, str, str]]:
        # Errors cross process borders in SubprocVecEnv; the default would call __init__ with the joined text.
        return (SetupError, self.parts)


class WrongAlgorithm(SetupError, AttributeError):
    """An algorithm asked a policy for a part it can't have; an ``AttributeError`` too, so that ``hasattr`` says no."""
