"""The pytest plugin of zarrstore: an assertion of the conformance suite that fails shows what was compared.

pytest explains the assertions of test files only, unless it is told of others before they are imported. This module
lies outside the package, because it is loaded at every start of pytest, also by those who do not use zarrstore there.
"""

import pytest

pytest.register_assert_rewrite("zarrstore.testing.conformance", "zarrstore.testing.stateful")
