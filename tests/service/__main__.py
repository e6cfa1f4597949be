"""`make run-service`: a registry, as many servers as there are cores, and a balancer, on loopback.

Clients connect to the balancer, as to a server. Everything ends with Ctrl-C, or when a part ends.
Exit status: 0 after a signal; 1 if something is missing, or did not start, or has ended.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from program import run as program

from service.parts import Service, cores, missing


def main() -> int:
    """Starts everything, and stops everything."""
    parser = argparse.ArgumentParser(prog="python -m tests.service", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address of the balancer")
    parser.add_argument("--port", type=int, default=4242, help="TCP port of the balancer")
    parser.add_argument("--servers", type=int, default=cores(), help="how many (%(default)s)")
    options, further = parser.parse_known_args()
    lacking = missing()
    if lacking:
        print(f"run-service needs {' and '.join(lacking)}, not found here", file=sys.stderr)
        return 1
    ends: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _: ends.append(which))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        address = f"{options.host}:{options.port}"
        try:
            running = Service(directory, options.servers, *further, address=address)
        except (OSError, TimeoutError) as error:
            print(f"run-service: {error}", file=sys.stderr)
            return 1
        try:
            told = ", ".join(str(port) for port in running.ports)
            print(f"serving on {options.host} port {running.balancer.port}, until Ctrl-C")
            print(
                f"(haproxy there, {len(running.servers)} servers on ports {told},"
                f" a registry on port {running.registry.port}; logs in {directory})",
                flush=True,
            )
            while not ends:
                if (part := running.ended()) is not None:
                    print(f"{part.log.stem} has ended: {part.said()[-400:]}", file=sys.stderr)
                    return 1
                time.sleep(0.1)
        finally:
            running.stop()
    print("stopped")
    return 0


if __name__ == "__main__":
    program(main)
