"""A file of questions: one per line; blank lines and lines that begin with # say nothing."""


def questions_in(text: str) -> list[str]:
    """The questions of a file, in order."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
