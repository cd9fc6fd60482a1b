"""Texts as Python has them."""

# In lower case.
CANONICAL_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


def is_unicode(text: str) -> bool:
    """Whether it can be stored and sent: not with half a surrogate pair.

    >>> is_unicode("č"), is_unicode("\\ud800")
    (True, False)
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
