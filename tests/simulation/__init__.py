"""The real server in simulated worlds, in the manner of FoundationDB and TigerBeetle.

Some things happen in a kernel and a network once a year: a reset between readiness and `recv`, no
descriptor left in the middle of a batch, an event for a number that now stands for another socket.
No test on real sockets can order them. Here the server, its reactor, its streams and its listener
are real. Everything around them is simulated: selector, clock, sockets, network, clients. One seed
decides all of it. So a failure can be repeated: `make simulate SEED=n`.

    kernel.py    time, descriptors, the selector, the dice
    sockets.py   the server's side of TCP: buffers, errors, RST, accept
    network.py   the network's side: pieces, delays, FIN, vanishing
    clients.py   the scripts, honest and hostile
    model.py     what the server should answer: a plain dict
    watch.py     the invariants, checked between any two turns of the loop
    watched.py   the invariants of one connection
    tls.py       both ends of TLS, which is spoken in one world of ten
    world.py     puts a world together from a seed, and runs it to its end
    signals.py   signals, and calls from other threads
    wishes.py    events that a reader wants to add
    show.py      a history as a page, step by step
    mistakes.py  mistakes that the worlds have to find
    machines.py  another world: several machines, their clocks, and the network between them
    service.py   several servers and a registry on them, which have to be one service
    redis.py     what a Redis does with what it is told
    __main__.py  the command

`test_mistakes.py` puts classic mistakes back into the server. The simulation finds each within
a thousand seeds, and most within a few. `test_tls_worlds.py` does the same with TLS, and
`test_service.py` with several servers: there, one mistake takes some thousand seeds.

What is not simulated: signals themselves (a wake-up descriptor stands for them), `listen` and name
resolution, the client's side of this project, and the time that a computation takes.
"""
