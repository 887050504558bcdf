"""For the API page: reST's roles in docstrings, such as :class:`~a.B`, become links where the site has the object."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|data|mod|attr):`(?P<name>[^`]+)`")


class Roles(griffe.Extension):
    """Read once for each object that has a docstring; mkdocstrings itself reads them as Markdown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """:param obj: whose docstring is changed"""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda role: _link(role["name"], obj), obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """:param func: loses the list of bare keywords that unpack_typeddict, which comes first, has added"""
        if func.docstring is not None and not func.docstring.value:
            func.docstring = None


def _link(name: str, obj: griffe.Object) -> str:
    path = name.lstrip("~")
    shown = path.rpartition(".")[2] if name.startswith("~") else path
    target = path if "." in path else f"{_home(obj, path)}.{path}"
    return f'<autoref identifier="{target}" optional><code>{shown}</code></autoref>'


def _home(obj: griffe.Object, name: str) -> str:
    """The class or module around an object in which a bare name is found."""
    inner: griffe.Object | griffe.Alias | None = obj
    while inner is not None and name not in inner.members:
        inner = inner.parent
    return inner.path if inner else obj.path
