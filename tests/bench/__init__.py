"""`make bench`: how fast the server is, next to what people would pick instead.

    python -m tests.bench [--quick] [--json FILE]

This compares reactors. Every server here answers with the same protocol core, in a process of its
own. One load generator drives them. In each round they take turns, so that a busy machine disturbs
all of them alike. In the order of reading:

    servers.py  the real server and its competitors, each in a process of its own
    lines.py    messages, sealed before anything is measured
    load.py     the load generator
    rows.py     what is measured: the rows of the table
    plain.py    the same without gmpy2, where it is installed
    tls.py      the same inside TLS
    crowd.py    the last row: a few busy sessions among ten thousand
    report.py   the table, the chart, the JSON
    __main__.py the command line, and the order in which all that happens

There are two rates for everything. *By the clock* is what a client sees. The slower of server and
load generator decides it, and a generator in Python is often the slower one. *Per CPU second* is
what a second of the server's processor time buys, however long the server waited. Compare that one.
The benchmark needs Linux, for epoll and for the CPU clock of another process.
"""
