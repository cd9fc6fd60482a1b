"""Facts about processes of this machine."""

import os


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists.

    >>> is_alive(os.getpid())
    True
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
