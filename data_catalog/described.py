"""What the comments in our source say, for people who do not read source: the meaning of a config's key, of a table's column."""

import ast
import inspect
import io
import sys
import tokenize
from functools import cache
from itertools import takewhile


def comments(module: str) -> dict[int, str]:
    """The comment of each line of a module that has one, by line number; empty where the source is not at hand."""
    return {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(_source(module)).readline)
        if token.type == tokenize.COMMENT
    }


@cache
def of_fields(module: str) -> dict[str, dict[str, str]]:
    """class → field → the comment at the end of the field's line."""
    said = comments(module)
    return {
        node.name: {
            field.target.id: said[line]
            for field in node.body
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            for line in range(field.lineno, (field.end_lineno or field.lineno) + 1)
            if line in said
        }
        for node in ast.parse(_source(module)).body
        if isinstance(node, ast.ClassDef)
    }


def of_tables(module: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Each schema `NAME = pa.schema([(column, type), ...])` of a module: the comment above it, and of each column the one beside it."""
    said, lines = comments(module), _source(module).splitlines()
    found = {}
    for node in ast.parse(_source(module)).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "pa.schema"
        ):
            above = list(
                takewhile(
                    lambda line: lines[line - 1].startswith("#"), range(node.lineno - 1, 0, -1)
                )
            )
            columns = [pair for pair in ast.walk(node.value) if isinstance(pair, ast.Tuple)]
            meanings = {
                str(ast.literal_eval(pair.elts[0])): said[pair.lineno]
                for pair in columns
                if pair.lineno in said
            }
            found[ast.unparse(node.targets[0])] = (
                " ".join(said[line] for line in reversed(above)),
                meanings,
            )
    return found


def _source(module: str) -> str:
    try:
        return inspect.getsource(sys.modules[module])
    except (OSError, TypeError):  # such as a program that was packed into one file
        return ""
