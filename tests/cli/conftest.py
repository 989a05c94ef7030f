"""What the tests of the command line share: the figures of their pages are not written out."""

import pytest


@pytest.fixture(autouse=True)
def _quickly(quick_pages: None) -> None:
    """A run ends in its page; here nobody looks at its figures."""
