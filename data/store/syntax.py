"""What the source of a module says to a key: its imports, and its definitions without what does not count."""

from __future__ import annotations

import ast
import sys
import threading
from collections.abc import Iterator

_PARSING = threading.Lock()
"""Python 3.11's ``ast.parse`` fails now and then in two threads at once."""


def read(source: bytes, package: str) -> tuple[list[str], dict[str, list[str]]]:
    """The names of all that a module of a package may import, and of each definition what its syntax tree holds.

    Raises:
        SyntaxError: no Python.
        ValueError: bytes that no source has.
    """
    with _PARSING:
        tree = _Essence().visit(ast.parse(source))
    return sorted({*_imports(tree, package)}), _definitions(tree)


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
                base = f"{anchor}.{base}".strip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


class _Essence(ast.NodeTransformer):
    """Drops what cannot change a result: strings that stand alone (docstrings), and ``if TYPE_CHECKING:`` blocks.

    And what Python 3.12 adds to a tree, so that one code has one digest everywhere: empty lists of type parameters, and
    (3.12.1) an empty string at the end of a format.
    """

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if vars(node).get("type_params") == []:
            del vars(node)["type_params"]
        if isinstance(node, ast.JoinedStr):
            node.values = [part for part in node.values if not isinstance(part, ast.Constant) or part.value != ""]
        return super().generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.AST] | None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return [kept for statement in node.orelse if (kept := self.visit(statement)) is not None]
        return self.generic_visit(node)


def _definitions(tree: ast.Module) -> dict[str, list[str]]:
    """What there is of each function, method and class (without its methods, which the tree loses), and of the rest of
    the module."""
    parts: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            parts.setdefault(node.name, []).append(_dump(node))
        elif isinstance(node, ast.ClassDef):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef)]
            for method in methods:
                parts.setdefault(f"{node.name}.{method.name}", []).append(_dump(method))
            node.body = [item for item in node.body if item not in methods]
            parts.setdefault(node.name, []).append(_dump(node))
        else:
            parts.setdefault("<module>", []).append(_dump(node))
    if "<module>" in parts:
        # A formatter sorts imports; their order is no change of the code.
        imports = [part for part in parts["<module>"] if part.startswith("Import")]
        others = [part for part in parts["<module>"] if not part.startswith("Import")]
        parts["<module>"] = [*sorted(imports), *others]
    return parts


def _dump(node: ast.AST) -> str:
    if sys.version_info >= (3, 13):
        return ast.dump(node, show_empty=True)  # as Pythons before it do
    return ast.dump(node)
