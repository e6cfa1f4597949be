"""The benchmark, tiny: every row is measured, and the figures can be true.

How fast anything is, is not asserted: this machine may be doing something else.
"""

import json
import select

import pytest

if not hasattr(select, "epoll"):
    pytest.skip("the benchmark needs Linux", allow_module_level=True)

from kv.protocol.cipher import ARITHMETIC
from tests.bench import several
from tests.bench.__main__ import run
from tests.bench.lines import WIDTH, Sealer
from tests.bench.load import Script, Wrong, connect, drive
from tests.bench.plain import compare, report
from tests.bench.report import document, table
from tests.bench.rows import Prepared, Scale
from tests.bench.servers import FORTY, OURS, Process, names
from tests.service.parts import missing

TINY = Scale(
    rounds=1,
    seconds=0.01,
    connections=5,
    cold=100,
    hot=4,
    puts=40,
    unseen=2,
    calls=5,
    sessions=20,
    tls_sessions=5,
    idle=0.01,
    keys=(512,),
    services=(1,),
    ids=640,
)


@pytest.fixture(scope="module")
def measured() -> tuple:
    return run(TINY)


def test_every_row_has_plausible_figures_for_every_server(measured: tuple) -> None:
    results, crowd, _, _, inside = measured
    assert len(results) == 7
    for result in [*results, crowd.result, *inside.results]:
        for samples in result.samples.values():
            for sample in samples:
                assert 1 < sample.rate < 1e8 and 1 < sample.cpu_rate < 1e8
                assert 0 < sample.p50 <= sample.p99 < 10
                assert 0 < sample.seals < sample.opens < 1e7
    assert [list(result.samples) for result in results] == [names()] * 7
    assert [list(result.samples) for result in inside.results] == [names(FORTY)] * 3


def test_the_crowd_is_as_large_as_asked_for(measured: tuple) -> None:
    crowd = measured[1]
    assert crowd.sessions == crowd.wanted == TINY.sessions
    assert crowd.connecting > 0 and crowd.idle_cpu >= 0


def test_five_blocks_cost_more_than_one(measured: tuple) -> None:
    costs = measured[2]
    assert [cost.blocks for cost in costs] == [1, 2, 3, 4, 5]
    assert costs[4].opening > costs[0].opening < costs[0].sealing < costs[4].sealing


def test_a_caller_has_plausible_figures(measured: tuple) -> None:
    for use in measured[3]:  # how they compare is for a longer run to say
        assert 0 < use.rate < 1e8 and use.share > 0


def test_the_report_names_every_row_and_server_in_lines_that_fit(measured: tuple) -> None:
    text = table(TINY, *measured)
    for result in [*measured[0], *measured[4].results]:
        assert text.count(f"\n{result.row.title}\n") == 2, "in the table and in the chart"
    for name in names():
        assert text.count(f"\n  {name}  ") >= 14
    assert max(map(len, text.splitlines())) <= 100


def test_the_json_has_what_the_table_has(measured: tuple) -> None:
    found = json.loads(json.dumps(document(*measured)))
    assert [row["title"] for row in found["rows"]] == [
        *(result.row.title for result in measured[0]),
        measured[1].result.row.title,
        *(result.row.title for result in measured[4].results),
    ]
    assert list(found["rows"][0]["servers"]) == names()
    assert found["rows"][0]["servers"][OURS]["ours_by_cpu"] == 1


def test_a_server_can_be_had_without_gmpy2() -> None:
    with Process(OURS, plain=True) as server:
        assert server._process.stdout.readline().endswith(b"arithmetic: pure Python\n")


def test_what_gmpy2_gains_is_measured_where_it_is_installed() -> None:
    gains = compare(TINY, lambda: None)
    assert len(gains) == (3 if ARITHMETIC.startswith("gmpy2") else 0)
    assert all(gain.rate > 1 and gain.times > 0 for gain in gains[:2])
    assert max(map(len, report(gains).splitlines())) <= 100


@pytest.mark.skipif(bool(missing()), reason=f"not on this machine: {missing()}")
def test_several_servers_have_plausible_figures() -> None:
    found = several.measure(Prepared(TINY), lambda: None)
    assert found is not None
    assert [row.servers for row in found.rows] == [1]
    assert found.rows[0].conversations > 1 and found.rows[0].commands > 1
    assert all(0 < cost < 1 for cost in found.rows[0].conversation_costs.values())
    assert 50 < found.memory < 5000 and found.alone > 0
    assert 0 < found.renewal < 1 and 0 < found.claim < 1
    assert max(map(len, several.report(found).splitlines())) <= 100


def test_a_wrong_reply_stops_the_benchmark() -> None:
    sealer = Sealer()
    with Process(OURS) as server:
        (connection,) = connect(server.port, sealer, [sealer.seal("CONNECT client")])
        script = Script(sealer.seal("GET missing"), ["a value"])
        assert script.step == WIDTH
        connection.begin(script)
        with pytest.raises(Wrong, match="'GET: ERROR', not 'a value'"):
            drive([connection], batches=1)
        connection.sock.close()
