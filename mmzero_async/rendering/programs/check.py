"""Looks at a plotting program before it runs: refuses what no drawing needs, by name and line.

Pure: text in, verdict out; never raises but MemoryError. Nothing rests on it alone: a program that
gets past it still runs in a process that can open nothing but fonts. What it adds is that a coder
is told what was wrong where, that pictures are reproducible, and a first wall.
"""

import ast
import string
from collections.abc import Iterator
from dataclasses import dataclass

from mmzero_async.rendering.outcomes import RenderFailure
from mmzero_async.rendering.programs.vocabulary import (
    ATTRIBUTES,
    BUILTINS,
    IMPORTABLE,
    KEEPING,
    MODULES,
    NOT_ATTRIBUTES,
    NOT_KEYWORDS,
    NOT_SETTINGS,
    SETTINGS,
    STYLES,
)

MAX_NODES = 20_000
MAX_DEPTH = 80
MAX_LITERAL = 4_096  # characters
MAX_NUMBER = 1e12
_STATEMENTS: tuple[type[ast.AST], ...] = (
    *(ast.Module, ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Import, ast.ImportFrom),
    *(ast.For, ast.While, ast.If, ast.Break, ast.Continue, ast.Pass, ast.FunctionDef, ast.Return),
)
_EXPRESSIONS: tuple[type[ast.AST], ...] = (
    *(ast.BoolOp, ast.NamedExpr, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension, ast.Compare),
    *(ast.Call, ast.keyword, ast.FormattedValue, ast.JoinedStr, ast.Constant, ast.Attribute),
    *(ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice, ast.arguments, ast.arg),
    *(ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_PYPLOT = "matplotlib.pyplot"
_STYLE, _RC_PARAMS, _COLORMAPS = (
    f"{_PYPLOT}.{name}" for name in ("style", "rcParams", "colormaps")
)
# Reached only to be called at once, with words that can be read here.
_CALLED = frozenset({(_STYLE, "use"), (_RC_PARAMS, "update"), (_PYPLOT, "rc")})


@dataclass(frozen=True, slots=True)
class Checked:
    """What may be run, and the statements that were left out: names of KEEPING."""

    tree: ast.Module
    mended: tuple[str, ...] = ()


class _Refusal(Exception):
    def __init__(self, kind: str, node: ast.AST, why: str) -> None:
        super().__init__(kind)
        line = getattr(node, "lineno", 1)
        self.verdict = RenderFailure(kind, f"line {line}: {why}"[:300])


def checked(text: str) -> Checked | RenderFailure:
    """The program as it may be run, or why not."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return RenderFailure("program:syntax", f"line {error.lineno or 1}: {error.msg}"[:300])
    except (ValueError, RecursionError, MemoryError) as error:
        what = str(error) or "nested too deeply for the parser"
        return RenderFailure("program:syntax", f"line 1: {what}"[:300])
    try:
        _measure(tree)
        keeping = _Keeping()
        tree = keeping.visit(tree)
        _Inspector(*_bound(tree)).visit(tree)
    except _Refusal as refusal:
        return refusal.verdict
    return Checked(ast.fix_missing_locations(tree), tuple(sorted(keeping.left_out)))


def _measure(tree: ast.Module) -> None:
    """Bounds size and depth, so that what follows may recurse."""
    seen = 0
    open_nodes: list[tuple[int, ast.AST, ast.AST]] = [(1, tree, tree)]
    while open_nodes:
        depth, node, placed = open_nodes.pop()
        seen += 1
        if seen > MAX_NODES:
            raise _Refusal("limit:nodes", placed, f"more than {MAX_NODES} parts by here")
        if depth > MAX_DEPTH:
            raise _Refusal("limit:depth", placed, f"nested deeper than {MAX_DEPTH}")
        for child in ast.iter_child_nodes(node):
            open_nodes.append((depth + 1, child, child if hasattr(child, "lineno") else placed))


class _Keeping(ast.NodeTransformer):
    """Leaves out statements that show, keep or close the picture, with all that is in them."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()

    def visit_Expr(self, node: ast.Expr) -> ast.stmt:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            name = call.func.attr
            if name in KEEPING and isinstance(call.func.value, ast.Name):
                self.left_out.add(name)
                return ast.copy_location(ast.Pass(), node)
        return node


def _bound(tree: ast.Module) -> tuple[dict[str, str], frozenset[str]]:
    """Names of modules, and all other names that the program gives to something."""
    modules: dict[str, str] = {}
    names: dict[str, ast.AST] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name, module in _imported(node):
                if modules.get(name, module) != module:
                    raise _Refusal("program:import", node, f"{name} is two modules")
                if module:
                    modules[name] = module
                else:
                    names.setdefault(name, node)
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.setdefault(node.id, node)
        elif isinstance(node, ast.arg):
            names.setdefault(node.arg, node)
        elif isinstance(node, ast.FunctionDef):
            names.setdefault(node.name, node)
    for name, node in names.items():
        if name in modules:
            raise _Refusal("program:name", node, f"{name} is a module and stays one")
        if name.startswith("__"):
            raise _Refusal("program:underscore", node, f"the name {name}")
    return modules, frozenset(names)


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """(name, module that it is, or "") of an import statement."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name not in IMPORTABLE:
                raise _Refusal("program:import", node, _may_import(alias.name))
            yield (
                alias.asname or alias.name.partition(".")[0],
                (alias.name if alias.asname else alias.name.partition(".")[0]),
            )
        return
    module = node.module or ""
    if node.level or module not in (*IMPORTABLE, "matplotlib"):
        raise _Refusal("program:import", node, _may_import("." * node.level + module))
    for alias in node.names:
        if alias.name not in MODULES[module] or (module, alias.name) in _CALLED:
            raise _Refusal("program:import", node, f"{alias.name} of {module}")
        path = f"{module}.{alias.name}"
        if path == _RC_PARAMS:
            raise _Refusal("program:import", node, "rcParams: write plt.rcParams")
        yield alias.asname or alias.name, path if path in MODULES else ""


def _may_import(name: str) -> str:
    return f"import of {name[:80]}; there is {', '.join(sorted(IMPORTABLE))}"


class _Inspector(ast.NodeVisitor):
    """Raises _Refusal at the first thing that is not allowed."""

    def __init__(self, modules: dict[str, str], names: frozenset[str]) -> None:
        self._modules = modules
        self._names = names

    def generic_visit(self, node: ast.AST) -> None:
        if not isinstance(node, _STATEMENTS + _EXPRESSIONS):
            raise _Refusal("program:statement", node, f"{type(node).__name__.lower()} is too much")
        super().generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        """Looked at already."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Looked at already."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.decorator_list:
            raise _Refusal("program:statement", node, "a decorator is too much")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str | bytes):
            if len(value) > MAX_LITERAL:
                raise _Refusal("limit:literal", node, f"a text of {len(value)} characters")
            text = value if isinstance(value, str) else value.decode("latin-1")
            if "__" in text and text != "__main__":
                raise _Refusal("program:underscore", node, "a text with two underscores")
        elif isinstance(value, int | float | complex) and not abs(value) <= MAX_NUMBER:
            raise _Refusal("limit:literal", node, f"a number over {MAX_NUMBER:g}")

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in self._modules:
            raise _Refusal("program:name", node, f"{node.id} alone; a module cannot be passed on")
        if node.id not in self._names and node.id not in BUILTINS and node.id != "__name__":
            kind = "program:underscore" if node.id.startswith("__") else "program:name"
            raise _Refusal(kind, node, f"there is no {node.id[:80]}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._attribute(node)
        if self._module(node) is not None:
            raise _Refusal("program:name", node, f"{node.attr} alone cannot be passed on")
        if (self._module(node.value), node.attr) in _CALLED:
            raise _Refusal("program:setting", node, f"{node.attr} can only be called")

    def visit_Subscript(self, node: ast.Subscript) -> None:
        module = self._module(node.value)
        if module == _RC_PARAMS:
            self._setting(node.slice, node.slice)
        elif module == _COLORMAPS:
            if not isinstance(node.ctx, ast.Load):
                raise _Refusal("program:assign", node, "the colour maps stay as they are")
        else:
            self.visit(node.value)
        self.visit(node.slice)

    def visit_Call(self, node: ast.Call) -> None:
        for keyword in node.keywords:
            if keyword.arg in NOT_KEYWORDS:
                raise _Refusal("program:setting", node, f"{keyword.arg} cannot be given")
        if isinstance(node.func, ast.Attribute):
            self._attribute(node.func)
            called = (self._module(node.func.value), node.func.attr)
            if called in _CALLED:
                self._settings(called[1], node)
        else:
            self.visit(node.func)
        for part in (*node.args, *node.keywords):
            self.visit(part)

    def _attribute(self, node: ast.Attribute) -> None:
        """An attribute by itself, and what it is an attribute of."""
        name, module = node.attr, self._module(node.value)
        if module is None:
            self.visit(node.value)
        if name.startswith("_"):
            raise _Refusal("program:underscore", node, f"the attribute {name[:80]}")
        if not isinstance(node.ctx, ast.Load):
            raise _Refusal("program:assign", node, f".{name[:80]} is set; use a set_ method")
        if module is not None:
            known = name in MODULES[module]
        else:
            getter = name.startswith(("get_", "set_")) and name not in NOT_ATTRIBUTES
            known = getter or name in ATTRIBUTES
        if not known:
            of = f" of {module}" if module else ""
            raise _Refusal("program:attribute", node, f"the attribute {name[:80]}{of}")
        if name == "format" and module is None:
            _check_format(node)

    def _module(self, node: ast.expr) -> str | None:
        """The module that an expression is, as a path of MODULES."""
        if isinstance(node, ast.Name):
            return self._modules.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._module(node.value)
            path = f"{owner}.{node.attr}"
            return path if owner is not None and path in MODULES else None
        return None

    def _settings(self, name: str, node: ast.Call) -> None:
        """style.use, rcParams.update and rc, whose words must be readable here."""
        words = [it.value if isinstance(it, ast.Constant) else None for it in node.args]
        if name == "use":
            if len(words) != 1 or words[0] not in STYLES or node.keywords:
                raise _Refusal("program:setting", node, f"a style by name: {sorted(STYLES)}")
        elif name == "rc":
            if len(words) != 1:
                raise _Refusal("program:setting", node, "rc takes one group and keywords")
            for keyword in node.keywords:
                self._check_setting(f"{words[0]!s}.{keyword.arg}", node)
        else:
            for part in node.args:
                if not isinstance(part, ast.Dict):
                    raise _Refusal("program:setting", node, "update takes {...}")
                for key in part.keys:
                    self._setting(key, node)
            if node.keywords:
                raise _Refusal("program:setting", node, "update takes {...}")

    def _setting(self, key: ast.expr | None, node: ast.AST) -> None:
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
            raise _Refusal("program:setting", node, "the name of a setting is written out")
        self._check_setting(key.value, node)

    def _check_setting(self, name: str, node: ast.AST) -> None:
        if name.partition(".")[0] not in SETTINGS or name in NOT_SETTINGS:
            raise _Refusal("program:setting", node, f"the setting {name[:80]}")


def _check_format(node: ast.Attribute) -> None:
    """str.format reaches attributes and items by itself, so its text must be readable here."""
    text = node.value.value if isinstance(node.value, ast.Constant) else None
    if not isinstance(text, str):
        raise _Refusal("program:format", node, "format of a text that is not written out")
    pending = [text]
    while pending:
        try:
            parts = list(string.Formatter().parse(pending.pop()))
        except ValueError as error:
            raise _Refusal("program:format", node, str(error)) from error
        for _, name, spec, _ in parts:
            if name and ("." in name or "[" in name):
                raise _Refusal("program:format", node, f"{{{name[:80]}}} reaches into a value")
            if spec:
                pending.append(spec)
