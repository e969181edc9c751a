"""A table as files, Markdown, CSV and JSON, and on the terminal."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from ractd.errors import RactdError
from ractd.files import replacing, write_json
from ractd.reproduce.aggregates import Aggregate
from ractd.reproduce.catalog import Experiment
from ractd.reproduce.claims import Verdict
from ractd.reproduce.layout import TIME, Grid
from ractd.reproduce.lines import QUANTITIES, Line, Source
from ractd.runs.directory import versions
from ractd.sweeps.statistics import FEWEST_SEEDS

FORMAT_VERSION = 1
COMPARISONS = (
    "Confirmed: the whole t interval over paired seeds is on the paper's side. Each comparison stands alone: of forty between "
    f"equal methods one is confirmed by chance. Below {FEWEST_SEEDS} seeds nothing is confirmed."
)
AGGREGATES = (
    "The intervals are percentiles of a bootstrap over seeds. Of three seeds they hold the truth about four times in five, and not "
    "19 times in 20: that two of them don't touch confirms nothing."
)


@dataclass(frozen=True)
class Table:
    """Everything that a table says."""

    name: str
    experiment: Experiment
    lines: list[Line]
    verdicts: list[Verdict]
    sources: list[Source]
    skipped: dict[str, str]
    """Datasets that could not be used, and why."""
    settings: dict[str, Any]
    """Preset, seeds and further options."""
    aggregates: list[Aggregate]

    @property
    def unit(self) -> str:
        """What `score` is in: score, return, or either."""
        return " or ".join(sorted({source.unit for source in self.sources}, reverse=True)) or "score"

    def grids(self) -> list[Grid]:
        """Return what is shown of the lines."""
        experiment = self.experiment
        return experiment.layout(experiment.columns, self.lines, experiment.reference, self.unit)

    def verdict_grids(self) -> list[Grid]:
        """Return the comparisons, a grid a dataset."""
        headers = ["comparison", "by our numbers", "evidence, 95% t interval"]
        return [
            Grid(name, headers, [[v.claim, v.state, v.evidence] for v in self.verdicts if v.dataset == name])
            for name in dict.fromkeys(verdict.dataset for verdict in self.verdicts)
        ]

    def aggregate_grids(self) -> list[Grid]:
        """Return the interquartile means; nothing where there are none."""
        if not self.aggregates:
            return []
        rows = [
            [each.method, f"{each.iqm:.1f} [{each.low:.1f}, {each.high:.1f}]", str(each.seeds), str(each.datasets)]
            for each in self.aggregates
        ]
        return [Grid("", ["method", f"IQM of {self.unit} [95% bootstrap interval]", "seeds", "datasets"], rows)]

    def missing(self) -> list[str]:
        """Say what was skipped and why, a sentence each; the methods that share a reason share its sentence."""
        told = [f"{name}: skipped: {why}" for name, why in self.skipped.items()]
        reasons: dict[tuple[str, str], list[str]] = {}
        for line in self.lines:
            note = line.note()
            if note:
                reasons.setdefault((line.dataset, note), []).append(line.method)
        return told + [f"{dataset}: {note}: {'; '.join(methods)}" for (dataset, note), methods in reasons.items()]


def write_table(table: Table, out: Path, console: Console) -> list[Path]:
    """Write NAME.md, .csv, .json, and what is drawn or has curves, each by atomic rename; return their paths."""
    pictures = _draw(table, out, console)
    texts = {
        f"{table.name}.md": markdown(table, [picture.name for picture in pictures]),
        f"{table.name}.csv": _csv(_fields(), [_record(line) for line in table.lines]),
    }
    curves = _curves(table.lines)
    if curves:
        texts[f"{table.name}-curves.csv"] = _csv(list(curves[0]), curves)
    paths = [out / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with replacing(path) as partial:
            partial.write_text(text)
    write_json(out / f"{table.name}.json", _content(table))
    return [*paths, out / f"{table.name}.json", *pictures]


def markdown(table: Table, pictures: Sequence[str]) -> str:
    """Return the table with its comparisons, data and gaps as Markdown."""
    parts = [f"# {table.experiment.title}"]
    parts += _markdown_grids(table.grids()) if table.lines else ["No dataset could be used."]
    parts += [f"![{table.experiment.title}]({picture})" for picture in pictures]
    parts += [_how(table)]
    if table.verdicts:
        parts += ["## The paper's comparisons", *_markdown_grids(table.verdict_grids()), COMPARISONS]
    if table.aggregates:
        parts += [
            "## Interquartile means over seeds and datasets",
            *_markdown_grids(table.aggregate_grids()),
            AGGREGATES,
        ]
    if table.sources:
        parts += ["## Data", "\n".join(f"* {source.sentence()}" for source in table.sources)]
    missing = table.missing()
    if missing:
        parts += ["## Not run", "\n".join(f"* {sentence}" for sentence in missing)]
    return "\n\n".join(parts) + "\n"


def show(table: Table, console: Console) -> None:
    """Print the table, its comparisons and what is missing."""
    for title, grids in (
        (table.experiment.title, table.grids()),
        ("Interquartile means over seeds and datasets", table.aggregate_grids()),
        ("The paper's comparisons", table.verdict_grids()),
    ):
        for grid in grids:
            shown = RichTable(title=f"{title} · {grid.heading}".removesuffix(" · "), title_justify="left")
            for header in grid.headers:
                shown.add_column(escape(header), overflow="fold")
            for row in grid.rows:
                shown.add_row(*map(escape, row))
            console.print(shown)
    for sentence in table.missing():
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _how(table: Table) -> str:
    preset, seeds = table.settings["preset"], table.settings["seeds"]
    several = "s" if len(seeds) > 1 else ""
    told = (
        f"Ours: preset `{preset}`, training seed{several} {', '.join(map(str, seeds))}. ± is the standard error over seeds where a "
        "line has several that differ, else over episodes, as the paper's is. Students are the best of their checkpoints by "
        "evaluations during training, as the paper's are, unless an option says otherwise."
    )
    if table.settings["options"]:
        told += f" Further options of every training: `{shlex.join(table.settings['options'])}`."
    told = f"{told} {table.experiment.remark}".strip()
    timed = [each for line in table.lines for each in line.seeds.values() if "ms" in each.samples]
    busy = sum(each.busy for each in timed)
    if busy and TIME in table.experiment.columns:
        told += f" Of the {len(timed)} times {busy} were measured while the machine was busy, and may be too long."
    return told


def _markdown_grids(grids: Sequence[Grid]) -> list[str]:
    parts = []
    for grid in grids:
        if len(grids) > 1:
            parts.append(f"**{grid.heading}**")
        rows = [grid.headers, ["---"] * len(grid.headers), *grid.rows]
        parts.append("\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows))
    return parts


def _fields() -> list[str]:
    measured = [column for name in QUANTITIES for column in (name, f"{name}_se")]
    return [
        "dataset",
        "method",
        "paper_score",
        "paper_se",
        "paper_nfe",
        "paper_seconds",
        "seeds",
        "episodes",
        *measured,
        "note",
    ]


def _record(line: Line) -> dict[str, Any]:
    published = line.published
    record: dict[str, Any] = {
        "dataset": line.dataset,
        "method": line.method,
        "paper_score": published.score,
        "paper_se": published.se,
        "paper_nfe": published.nfe,
        "paper_seconds": published.seconds,
        "seeds": " ".join(map(str, line.seeds)),
        "episodes": sum(map(len, line.samples("score").values())),
        "note": line.note(),
    }
    return record | {name: line.mean(name) for name in QUANTITIES} | {f"{q}_se": line.error(q) for q in QUANTITIES}


def _csv(fields: Sequence[str], records: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _curves(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [
        {
            "dataset": line.dataset,
            "method": line.method,
            "seed": seed,
            "step": int(step),
            "score": value,
            "score_se": se,
        }
        for line in lines
        for seed, measured in line.seeds.items()
        if measured.curve is not None
        for step, value, se in zip(*measured.curve, strict=True)
    ]


def _content(table: Table) -> dict[str, Any]:
    lines = []
    for line in table.lines:
        record = _record(line) | {"seeds": list(line.seeds)}
        record["runs"] = {str(seed): measured.run for seed, measured in line.seeds.items()}
        record["busy"] = [seed for seed, measured in line.seeds.items() if measured.busy]
        record["by_seed"] = {
            name: {str(seed): float(samples.mean()) for seed, samples in line.samples(name).items()}
            for name in QUANTITIES
            if line.samples(name)
        }
        lines.append({key: value for key, value in record.items() if value is not None})
    return {
        "format": "ractd-table",
        "format_version": FORMAT_VERSION,
        "name": table.name,
        "title": table.experiment.title,
        "unit": table.unit,
        "quantities": QUANTITIES,
        "settings": table.settings,
        "lines": lines,
        "aggregates": [each.__dict__ for each in table.aggregates],
        "comparisons": [verdict.__dict__ for verdict in table.verdicts],
        "datasets": [
            {"published": source.published, "unit": source.unit, **source.description} for source in table.sources
        ],
        "skipped": table.skipped,
        "missing": table.missing(),
        "versions": versions(),
    }


def _draw(table: Table, out: Path, console: Console) -> list[Path]:
    if table.experiment.figures is None:
        return []
    figures = [
        figure
        for source in table.sources
        for figure in table.experiment.figures(
            table.name, source.name, [line for line in table.lines if line.dataset == source.name], source.unit
        )
    ]
    try:
        from ractd.report.pictures import write_pictures
    except ModuleNotFoundError as error:
        console.print(f'no picture without {error.name}: pip install "ractd[plot]"', markup=False, highlight=False)
        return []
    try:
        return write_pictures(figures, out)
    except OSError as error:
        raise RactdError(f"{out}: pictures could not be written ({error.strerror})") from error
