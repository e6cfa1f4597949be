"""What was measured, for people and for programs."""

import os
import platform
import textwrap
from pathlib import Path

from kv.protocol.cipher import ARITHMETIC

from . import caller, growth, tls
from .crowd import ALONE, AMONG, Crowd
from .rows import Result, Scale

#: Below this share of a processor the server was waiting for the load generator.
SATURATED = 0.9
CHART = 50  # columns of the longest bar

NOTES = """
All figures are medians over the rounds. replies/s is by the clock; ~ marks where the server had a
processor for less than 90 % of the time, so that the clock shows the load generator (or other
programs on the machine) and not the server. "per CPU s" is per second of the server's own processor
time: compare that. p50 and p99 are latencies as the load generator sees them, of a whole batch
where 16 are in flight. "limit" is "per CPU s" as a share of what the bare arithmetic allows where
every message is new. "by CPU" and "by clock": how many times that server's rate the kv server has.
Cold is a line that its session has never sent, answered GET: ERROR or PUT: OK; hot is one of
{hot} lines, again and again, answered with its value. Handshakes are from connect to the end.

All servers have the same protocol core. The kv server runs as it is, with default settings and all
its checks. The others lack these: bounds on what is buffered, in either direction, for a peer that
never ends its line or does not read (asyncio streams have both, threads the latter); deadlines for
the handshake, for silence and for stalls; a limit of connections, and care when descriptors run
out; a bounded turn, so that no client starves the others (threads have the kernel's); a close that
lets the peer read its last replies; a graceful stop. The threads share one store without the lock
that it would need. The barest loop only receives, looks up and sends: its hot rows show how much is
possible at all.
"""


def table(
    scale: Scale,
    results: list[Result],
    crowd: Crowd | None,
    costs: list[growth.Cost],
    uses: list[caller.Use],
    inside: tls.Inside,
) -> str:
    """Everything, as text."""
    every = results + ([crowd.result] if crowd else []) + inside.results
    parts = [machine(), arithmetic(every)]
    parts += ["\n".join(_rows(result)) for result in every]
    if crowd:
        parts.append(_crowd(crowd))
    parts.append(tls.report(inside))
    parts.append(caller.report(uses))
    parts.append(growth.report(costs))
    parts.append(_paragraphs(NOTES.format(hot=scale.hot)))
    parts.append("\n".join(_chart(every)))
    return "\n\n".join(parts)


def machine() -> str:
    """Where this runs."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {platform.system()} {platform.release()}, {os.cpu_count()} x {model}"


def arithmetic(results: list[Result]) -> str:
    """The limit."""
    opens, seals = bare(results)
    return (
        f"bare arithmetic ({ARITHMETIC}) on one core: {opens:,.0f} public-key operations a second\n"
        f"and {seals:,.0f} private-key operations a second"
    )


def bare(results: list[Result]) -> tuple[float, float]:
    """The best that was seen of both operations, per second."""
    samples = [one for result in results for each in result.samples.values() for one in each]
    return max(one.opens for one in samples), max(one.seals for one in samples)


def _rows(result: Result) -> list[str]:
    ours = next(iter(result.samples))
    head = (
        f"  {'':18}{result.row.unit + '/s':>15}{'per CPU s':>11}{'p50 ms':>8}{'p99 ms':>8}"
        f"{'limit':>7}{'by CPU':>11}{'by clock':>11}"
    )
    lines = [result.row.title, head]
    for name in result.samples:
        share = result.share(name)
        limit = f"{share:.2f}" if share is not None else ""
        mark = "~" if result.median(name, "busy") < SATURATED else " "
        line = (
            f"  {name:18}{result.median(name, 'rate'):14,.0f}{mark}"
            f"{result.median(name, 'cpu_rate'):11,.0f}"
            f"{result.median(name, 'p50') * 1000:8.2f}{result.median(name, 'p99') * 1000:8.2f}"
            f"{limit:>7}"
        )
        if name != ours:
            for figure in ("cpu_rate", "rate"):
                line += f"{'x' + format(result.ratio(ours, name, figure), '.2f'):>11}"
        lines.append(line)
    return lines


def _crowd(crowd: Crowd) -> str:
    fewer = (
        f" ({crowd.wanted:,} were wanted: the limit of open descriptors, ulimit -n, is too low)"
        if crowd.sessions < crowd.wanted
        else ""
    )
    busy = crowd.result.ratio(AMONG, ALONE, "cpu_rate")
    return textwrap.fill(
        f"{crowd.sessions:,} sessions{fewer}: all connected in {crowd.connecting:.1f} s, none"
        f" refused; {crowd.memory / 1024:.2f} KiB of resident memory each;"
        f" {crowd.idle_cpu * 100:.2f} % of a processor while idle; the busy ones get {busy:.2f} of"
        f" what they get alone",
        100,
    )


def _chart(results: list[Result]) -> list[str]:
    lines = ["per CPU second; the longest bar of a row is its best"]
    for result in results:
        rates = {name: result.median(name, "cpu_rate") for name in result.samples}
        lines += ["", result.row.title]
        for name, rate in rates.items():
            bar = "#" * round(CHART * rate / max(rates.values()))
            lines.append(f"  {name:18} {bar} {rate:,.0f}")
    return lines


def _paragraphs(text: str) -> str:
    return "\n\n".join(textwrap.fill(part, 100) for part in text.strip().split("\n\n"))


def document(
    results: list[Result],
    crowd: Crowd | None,
    costs: list[growth.Cost],
    uses: list[caller.Use],
    inside: tls.Inside,
) -> dict[str, object]:
    """Everything, for `json.dump`. Rates are per second, durations in seconds, sizes in octets."""
    every = results + ([crowd.result] if crowd else []) + inside.results
    opens, seals = bare(every)
    document: dict[str, object] = {
        "machine": machine(),
        "public_key_operations": opens,
        "private_key_operations": seals,
        "rows": [_row_document(result) for result in every],
        "costs": [vars(cost) for cost in costs],
        "caller": [vars(use) for use in uses],
        "tls": {"sessions": inside.sessions, "memory": inside.memory},
    }
    if crowd:
        document["crowd"] = {
            "sessions": crowd.sessions,
            "wanted": crowd.wanted,
            "connecting": crowd.connecting,
            "memory": crowd.memory,
            "idle_cpu": crowd.idle_cpu,
        }
    return document


def _row_document(result: Result) -> dict[str, object]:
    first = next(iter(result.samples))
    return {
        "title": result.row.title,
        "unit": result.row.unit,
        "servers": {
            name: {
                **{
                    figure: result.median(name, figure)
                    for figure in ("rate", "cpu_rate", "busy", "p50", "p99")
                },
                "limit": result.share(name),
                "ours_by_cpu": result.ratio(first, name, "cpu_rate"),
                "ours_by_clock": result.ratio(first, name, "rate"),
                "rounds": [vars(sample) for sample in samples],
            }
            for name, samples in result.samples.items()
        },
    }
