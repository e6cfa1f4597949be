"""`make bench`: how fast the server is, next to what people would pick instead.

    python -m tests.bench [--quick] [--json FILE]

What is compared is the reactor. Every server here answers with the same protocol core, in a
process of its own; one load generator drives them, taking turns within each round, so that
whatever else the machine does meets all of them alike. In the order of reading:

    servers.py  the real server and its competitors, each in a process of its own
    lines.py    messages, sealed before anything is measured
    load.py     the load generator
    rows.py     what is measured: the rows of the table
    plain.py    the same without gmpy2, where it is installed
    tls.py      the same inside TLS
    crowd.py    the last row: a few busy sessions among ten thousand
    report.py   the table, the chart, the JSON
    __main__.py the command line, and the order in which all that happens

Two rates are given for everything. *By the clock* is what a client sees; it is the slower of
server and load generator, and a generator in Python is often the slower one. *Per CPU second* is
what a second of the server's processor time buys, however long it waited for the generator, and
is what to compare. Needs Linux, for epoll and for the CPU clock of another process.
"""
