"""A table as files, Markdown, CSV and JSON, and on the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from ractd.files import replacing, write_json, write_text
from ractd.reproduce.catalog import Experiment
from ractd.reproduce.claims import Comparison
from ractd.reproduce.lines import QUANTITIES, Line, TableSource, summary
from ractd.results.statistics import FEWEST_SEEDS, interquartile_means
from ractd.results.tables import markdown_table, terminal_table
from ractd.runs.directory import versions
from ractd.runs.tables import with_error, with_interval

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
class PaperTable:
    """Everything that a table says."""

    name: str
    experiment: Experiment
    lines: list[Line]
    comparisons: list[Comparison]
    sources: list[TableSource]
    skipped: dict[str, str]
    """Datasets that could not be used, and why."""
    settings: dict[str, Any]
    """Preset, seeds and further options."""

    @property
    def unit(self) -> str:
        """What `score` is in: score, return, or either."""
        return " or ".join(sorted({source.unit for source in self.sources}, reverse=True)) or "score"

    def parts(self) -> list[tuple[str, pd.DataFrame]]:
        """Return what is shown of the lines, as text: a heading, which may be empty, and cells."""
        frame = summary(self.lines, self.name)
        if not self.experiment.columns:
            return [("", _matrix(frame, self.unit))]
        return [(str(name), self._listing(part)) for name, part in frame.groupby("dataset", sort=False)]

    def _listing(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return a dataset's lines, without columns that nothing is known for."""
        frame = frame.assign(quantiles=[_quantiles(line) for line in self.lines if line.dataset in set(frame.dataset)])
        reference = frame[frame.method == self.experiment.reference].squeeze()
        cells = {}
        for name in self.experiment.columns:
            heading, text = COLUMNS[name]
            cells[heading.format(unit=self.unit)] = [text(row, reference) for _, row in frame.iterrows()]
        return pd.DataFrame({heading: texts for heading, texts in cells.items() if any(texts)})

    def comparison_parts(self) -> list[tuple[str, pd.DataFrame]]:
        """Return the comparisons, a heading and cells for each dataset."""
        headings = {"claim": "comparison", "state": "by our numbers", "evidence": "evidence, 95% t interval"}
        frame = pd.DataFrame([asdict(each) for each in self.comparisons], columns=["dataset", *headings])
        return [
            (str(name), part.drop(columns="dataset").rename(columns=headings))
            for name, part in frame.groupby("dataset", sort=False)
        ]

    def aggregates(self) -> pd.DataFrame:
        """Return the methods' interquartile means over all seeds and datasets: method, iqm, low, high, seeds, datasets.

        Empty where datasets have their own units; without methods that have too few seeds, or that no seed changes.
        """
        columns = ["method", "iqm", "low", "high", "seeds", "datasets"]
        names = {line.dataset for line in self.lines}
        scores = {}
        for method in dict.fromkeys(line.method for line in self.lines if not line.of_data):
            means = pd.DataFrame([line.means("score") for line in self.lines if line.method == method]).dropna(axis=1)
            if len(means) == len(names) and means.shape[1] >= FEWEST_SEEDS:
                scores[method] = means.sort_index(axis=1).to_numpy().T
        if not scores or not (self.unit == "score" or len(names) == 1):
            return pd.DataFrame(columns=columns)
        means = interquartile_means(scores)
        return pd.DataFrame([(name, *means[name], *each.shape) for name, each in scores.items()], columns=columns)

    def missing(self) -> list[str]:
        """Say what was skipped and why, a sentence each; the methods that share a reason share its sentence."""
        told = [f"{name}: skipped: {why}" for name, why in self.skipped.items()]
        reasons: dict[tuple[str, str], list[str]] = {}
        for line in self.lines:
            if note := line.note():
                reasons.setdefault((line.dataset, note), []).append(line.method)
        return told + [f"{dataset}: {note}: {'; '.join(methods)}" for (dataset, note), methods in reasons.items()]


def _number(name: str, digits: int = 1) -> Callable[[Any, Any], str]:
    return lambda row, _: with_error(row[name], row[f"{name}_se"], digits)


def _times(name: str, unit: str) -> Callable[[Any, Any], str]:
    def text(row: Any, reference: Any) -> str:
        if pd.isna(row[name]):
            return ""
        ratio = f" ({row[name] / reference[name]:.3g}x)" if len(reference) and pd.notna(reference[name]) else ""
        return f"{row[name]:.3g} {unit}{ratio}"

    return text


def _plain(name: str, form: str = "{:g}") -> Callable[[Any, Any], str]:
    return lambda row, _: "" if pd.isna(row[name]) else form.format(row[name])


def _share(row: Any, _: Any) -> str:
    return "" if pd.isna(row.upper_se) else f"{row.upper:.0%} ± {row.upper_se:.1%}"


COLUMNS: dict[str, tuple[str, Callable[[Any, Any], str]]] = {
    "method": ("method", _plain("method", "{}")),
    "paper score": ("paper: score", lambda row, _: with_error(row.paper_score, row.paper_se)),
    "score": ("ours: {unit} ± s.e.", lambda row, _: with_error(row.score, row.score_se) or "not run"),
    "last": ("last checkpoint", _number("last")),
    "training": ("training: processor s", _plain("processor_seconds", "{:,.0f}")),
    "paper nfe": ("paper: NFE", _plain("paper_nfe")),
    "nfe": ("ours: NFE", _plain("nfe")),
    "paper time": ("paper: time", _times("paper_seconds", "s")),
    "time": ("ours: time", _times("ms", "ms")),
    "spread": ("spread of samples", _number("spread", 3)),
    "kept": ("teacher's modes kept", _number("kept", 3)),
    "quantiles": ("returns: 10 / 50 / 90 %", _plain("quantiles", "{}")),
    "upper": ("episodes in the better mode ± s.e.", _share),
    "late": ("late in training: {unit}", _number("late")),
    "swing": ("swing there", _number("swing")),
    "seeds": ("seeds", lambda row, _: row.seeds.replace(" ", ", ")),
}
"""By name: heading, and text from a row of `lines.summary` and from the row that times are compared with."""


def _quantiles(line: Line) -> str:
    by_seed = list(line.samples("return").values())
    return (
        " / ".join(f"{value:,.0f}" for value in np.percentile(np.concatenate(by_seed), (10, 50, 90))) if by_seed else ""
    )


def _matrix(frame: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Return a row a method for the paper's scores, ours, and our last checkpoints', a column a dataset, and their averages."""
    whose = {"paper": "paper score", "ours": "score", "ours, last": "last"}
    rows = []
    datasets = frame.dataset.unique()
    for method, part in frame.groupby("method", sort=False):
        part = part.set_index("dataset", drop=False).reindex(datasets)
        for name, column in whose.items():
            known = part[column.replace(" ", "_")]
            if name != "ours" and known.isna().all():
                continue
            average = "" if known.isna().any() else f"{known.mean():,.1f}"
            nfe = part["paper_nfe" if name == "paper" else "nfe"].dropna()
            cells = [COLUMNS[column][1](row, None) for _, row in part.iterrows()]
            rows.append([method, name, *cells, average, f"{nfe.iloc[0]:g}" if len(nfe) else ""])
    return pd.DataFrame(rows, columns=["method", "whose", *datasets, f"average {unit}", "NFE"])


def write_table(table: PaperTable, out: Path) -> list[Path]:
    """Write NAME.md, .csv, .json, and what is drawn or has curves, each by atomic rename; return their paths."""
    pictures = _draw(table, out)
    texts = {
        f"{table.name}.md": markdown(table, [picture.name for picture in pictures]),
        f"{table.name}.csv": summary(table.lines, table.name).to_csv(index=False),
    }
    curves = [
        measured.curve.assign(dataset=line.dataset, method=line.method, seed=seed)
        for line in table.lines
        for seed, measured in line.seeds.items()
        if measured.curve is not None
    ]
    if curves:
        columns = ["dataset", "method", "seed", "step", "score", "score_se"]
        texts[f"{table.name}-curves.csv"] = pd.concat(curves).to_csv(columns=columns, index=False)
    for name, text in texts.items():
        write_text(out / name, text)
    write_json(out / f"{table.name}.json", _content(table))
    return [*(out / name for name in texts), out / f"{table.name}.json", *pictures]


def markdown(table: PaperTable, pictures: Sequence[str] = ()) -> str:
    """Return the table with its comparisons, data and gaps as Markdown."""
    parts = [f"# {table.experiment.title}"]
    parts += _markdown(table.parts()) if table.lines else ["No dataset could be used."]
    parts += [f"![{table.experiment.title}]({picture})" for picture in pictures]
    parts += [_how(table)]
    if table.comparisons:
        parts += ["## The paper's comparisons", *_markdown(table.comparison_parts()), COMPARISONS]
    if len(aggregates := _aggregate_text(table)):
        parts += ["## Interquartile means over seeds and datasets", *_markdown([("", aggregates)]), AGGREGATES]
    if table.sources:
        parts += ["## Data", "\n".join(f"* {source.sentence()}" for source in table.sources)]
    if missing := table.missing():
        parts += ["## Not run", "\n".join(f"* {sentence}" for sentence in missing)]
    return "\n\n".join(parts) + "\n"


def _markdown(parts: Sequence[tuple[str, pd.DataFrame]]) -> list[str]:
    texts = []
    for heading, cells in parts:
        if len(parts) > 1:
            texts.append(f"**{heading}**")
        texts.append(markdown_table(cells.columns, cells.itertuples(index=False)).rstrip())
    return texts


def _aggregate_text(table: PaperTable) -> pd.DataFrame:
    frame = table.aggregates()
    heading = f"IQM of {table.unit} [95% bootstrap interval]"
    frame[heading] = [with_interval(row.iqm, row.low, row.high) for row in frame.itertuples()]
    return frame[["method", heading, "seeds", "datasets"]].astype(str)


def show(table: PaperTable, console: Console) -> None:
    """Print the table, its comparisons and what is missing."""
    aggregates = _aggregate_text(table)
    for title, parts in (
        (table.experiment.title, table.parts()),
        ("Interquartile means over seeds and datasets", [("", aggregates)] if len(aggregates) else []),
        ("The paper's comparisons", table.comparison_parts()),
    ):
        for heading, cells in parts:
            whole = f"{title} · {heading}".removesuffix(" · ")
            console.print(terminal_table(cells.columns, cells.itertuples(index=False), title=whole))
    for sentence in table.missing():
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _how(table: PaperTable) -> str:
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
    if busy and "time" in table.experiment.columns:
        told += f" Of the {len(timed)} times {busy} were measured while the machine was busy, and may be too long."
    return told


def _content(table: PaperTable) -> dict[str, Any]:
    lines = []
    for line, record in zip(table.lines, summary(table.lines, table.name).to_dict("records"), strict=True):
        known = {str(key): value for key, value in record.items() if pd.notna(value)}
        known |= {
            "seeds": list(line.seeds),
            "runs": {str(seed): measured.run for seed, measured in line.seeds.items()},
            "busy": [seed for seed, measured in line.seeds.items() if measured.busy],
            "by_seed": {name: line.means(name) for name in QUANTITIES if line.samples(name)},
        }
        lines.append(known)
    return {
        "format": "ractd-table",
        "format_version": FORMAT_VERSION,
        "name": table.name,
        "title": table.experiment.title,
        "unit": table.unit,
        "quantities": QUANTITIES,
        "settings": table.settings,
        "lines": lines,
        "aggregates": table.aggregates().to_dict("records"),
        "comparisons": [asdict(each) for each in table.comparisons],
        "datasets": [
            {"published": source.published, "unit": source.unit, **source.description} for source in table.sources
        ],
        "skipped": table.skipped,
        "missing": table.missing(),
        "versions": versions(),
    }


def _draw(table: PaperTable, out: Path) -> list[Path]:
    draw, paths = table.experiment.draw, []
    for source in table.sources:
        lines = [line for line in table.lines if line.dataset == source.name]
        figure = draw(source.name, lines, source.unit) if draw else None
        if figure is not None:
            paths.append(out / f"{table.name}-{source.name}.png")
            with replacing(paths[-1]) as partial:
                figure.savefig(partial, format="png")
    return paths
