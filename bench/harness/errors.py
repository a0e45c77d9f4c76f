"""The two ways in which a benchmark ends without a number."""


class Failure(Exception):
    """Something that was to be measured did not work (exit code 1)."""


class Unusable(Exception):
    """Bad usage, or a host that cannot do it at all (exit code 2)."""
