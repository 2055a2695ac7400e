"""`spdify rules`: what rulebooks there are, what they say, and whether one is sound."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from spdify.cli import options as o
from spdify.cli.terminal import output_console, print_json
from spdify.errors import printable

rules_app = typer.Typer(no_args_is_help=True, help="List, show and check rulebooks.")

Book = Annotated[str, typer.Argument(metavar="NAME|FILE.toml", help="A rulebook.")]


@rules_app.command("list")
def list_rules(
    as_json: o.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    debug: o.Debug = False,
) -> None:
    """List the rulebooks that spdify brings, by what they are about."""
    from spdify.reporting.markdown import table as markdown_table
    from spdify.rulebook import grouped_rulebooks

    groups = grouped_rulebooks()
    if as_json:
        books = [(name, book) for name, found in groups.items() for book in found]
        print_json(
            [
                {
                    "name": b.name, "group": group, "summary": b.summary, "source": str(b.source), "rules": len(b.rules)
                }
                for group, b in books
            ]
        )  # fmt: skip
        return
    if markdown:
        rows = [(name, f"`{b.name}`", b.summary, str(b.source)) for name, found in groups.items() for b in found]
        for line in markdown_table(("about", "rulebook", "what it does", "source"), rows, numbers_from=4):
            output_console().print(line, markup=False, soft_wrap=True)
        return
    table = Table("rulebook", "rules", "summary", "source", box=None, header_style="bold")
    for name, found in groups.items():
        table.add_row(Text(name, style="bold"))
        for book in found:
            table.add_row(*map(Text, (f"  {book.name}", str(len(book.rules)), book.summary, str(book.source))))
    output_console().print(table)


@rules_app.command("show")
def show_rules(book: Book, as_json: o.Json = False, debug: o.Debug = False) -> None:
    """Print a rulebook's rules, with every parameter, also those that it leaves at their defaults."""
    from spdify.engine import bind
    from spdify.rulebook import load_rulebook

    rulebook = load_rulebook(book)
    rewrites = bind(rulebook)
    if as_json:
        print_json(rulebook)
        return
    console = output_console()
    console.print(Text.assemble((rulebook.name, "bold"), f": {printable(rulebook.summary)}"))
    console.print(Text(f"source: {printable(str(rulebook.source))}\n"))
    table = Table("rule", "matches", "rewrite", "parameters", box=None, header_style="bold")
    for rule in rulebook.rules:
        wanted = rule.match.model_dump(exclude_none=True)
        matches = ", ".join(f"{key}={_short(value)}" for key, value in wanted.items()) or "every site"
        params = rewrites[rule.name].params.model_dump() if rule.name in rewrites else {}
        text = ", ".join(f"{key}={value}" for key, value in params.items()) or rule.reason
        # As Text: in a string, a glob such as [ab]* would be read as markup.
        table.add_row(*(Text(printable(cell)) for cell in (rule.name, matches, rule.rewrite, text)))
    console.print(table)


@rules_app.command("check")
def check_rules(book: Book, debug: o.Debug = False) -> None:
    """Read a rulebook, its rules, rewrites and parameters; say what is wrong, or that it is sound."""
    from spdify.engine import bind
    from spdify.rulebook import load_rulebook

    rulebook = load_rulebook(book)
    bind(rulebook)
    output_console().print(Text(f"{book}: {len(rulebook.rules)} rules, sound"))


def _short(value: object) -> str:
    return "|".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
