"""Make Markdown of docstrings, for the reference of the API on the site.

A docstring is plain English with equations. It may hold roles such as ``:class:`Dataset```, code in
double backquotes, examples with ``>>>``, and parts that begin with ``Raises:``. Griffe reads the
source for the site, and hands what it reads to :class:`Docstrings`.
"""

import re
from typing import Any

from griffe import (
    Class,
    Extension,
    Function,
    Object,
    Parameter,
    ParameterKind,
    Parameters,
)

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)\.?([\w.]+)`")
PART = re.compile(
    r"(?:^|(?<=[.;)`] )|(?<=\n))(Raises|References?|Differences? from [\w ]+|Cost|Example): "
)
SYNTAX = re.compile(r"(`[^`]*`)|(\]|<)(?=[\[(A-Za-z])")
"""Code, which stays as it is, and what Markdown would take for a link or for HTML."""


def markdown(text: str) -> str:
    """Return a docstring as Markdown."""
    text = ROLE.sub(lambda m: f"`{m[2].rpartition('.')[2] if m[1] else m[2]}`", text)
    text = text.replace("``", "`")
    return "\n\n".join(_block(block) for block in re.split(r"\n\s*\n", text))


def _block(block: str) -> str:
    if example := re.search(r"^ *>>> ", block, re.M):
        before = block[: example.start()].strip()
        fence = f"```pycon\n{block[example.start() :].strip()}\n```"
        return f"{_block(before)}\n\n{fence}" if before else fence
    if block.startswith("    "):  # an equation
        return block
    block = SYNTAX.sub(lambda m: m[1] or ("&lt;" if m[2] == "<" else "\\]"), block)
    return PART.sub(lambda m: f"**{m[1]}:** ", block)


class Docstrings(Extension):
    """Turns docstrings into Markdown, and gives each component the signature of its fields."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module, a class, a function or an attribute."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """Make the ``__init__`` of a component, which the decorator makes when it is imported."""
        made = {str(decorator.value) for decorator in cls.decorators}
        if not made & {"component", "keyword_component"}:
            return
        by_name = "keyword_component" in made
        kind = ParameterKind.keyword_only if by_name else ParameterKind.positional_or_keyword
        fields = [
            Parameter(each.name, annotation=each.annotation, kind=kind, default=each.value)
            for each in cls.attributes.values()
            if each.annotation is not None
            and each.name != "name"
            and not str(each.annotation).startswith("ClassVar")
        ]
        own = Parameter("self", kind=ParameterKind.positional_or_keyword)
        cls.set_member("__init__", Function("__init__", parameters=Parameters(own, *fields)))
