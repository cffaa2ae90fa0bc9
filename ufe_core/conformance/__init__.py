"""What every component must keep to, by kind, as checks that run: `ufe plugins check`, and pytest for authors.

In a plugin's own tests:

    from ufe_core.conformance import rules_of, examine

    @pytest.mark.parametrize("rule", rules_of("encoder"), ids=str)
    def test_it_keeps_to(rule):
        examine("acme/fovea", rule, kind="encoder")

or, for all components of an installed package at once, `pytest --ufe-plugin acme-ufe`; options that they need are given
by `--ufe-set KIND.OPTION=VALUE`, e.g. `--ufe-set source.root=/data`.
"""

from ufe_core.conformance.examine import Finding as Finding
from ufe_core.conformance.examine import examine as examine
from ufe_core.conformance.examine import examined as examined
from ufe_core.conformance.rule import Broken as Broken
from ufe_core.conformance.rule import Rule as Rule
from ufe_core.conformance.rule import rules_of as rules_of
