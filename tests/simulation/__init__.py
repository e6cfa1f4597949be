"""The real server in simulated worlds, in the manner of FoundationDB and TigerBeetle.

What a kernel and a network do once a year (a reset between readiness and `recv`, no descriptor
left in the middle of a batch, an event for a number that now belongs to somebody else) no test on
real sockets can order. Here the server, its reactor, streams and listener are the real ones, and
everything below and around them is made up: selector, clock, sockets, network, clients. One seed
decides all of it, so whatever goes wrong, goes wrong again: `make simulate SEED=n`.

    kernel.py    time, descriptors, the selector, the dice
    sockets.py   the server's side of TCP: buffers, errors, RST, accept
    network.py   the other side of it: pieces, delays, FIN, vanishing
    clients.py   the scripts, honest and hostile
    model.py     what the server should answer: a plain dict
    watch.py     the invariants, checked between any two turns of the loop
    watched.py   those of one connection
    tls.py       both ends of TLS, which is spoken in one world of ten
    world.py     puts a world together from a seed, and runs it to its end
    signals.py   signals, and calls from other threads
    wishes.py    what a reader wants to see happen besides
    show.py      a history as a page, step by step
    __main__.py  the command

`test_mistakes.py` shows that it bites: it puts classic mistakes back into the server, and each is
found within a few seeds; `test_tls_worlds.py` does the same with TLS.

What is not simulated: signals themselves (a wake-up descriptor stands for them), `listen` and name
resolution, the client's side of this project, and time that passes inside of a computation.
"""
