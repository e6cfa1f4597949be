"""Small programs on `kv.net` alone, or on the library: what can be reused, shown in use.

python -m tests.examples.echo 4243      then: nc 127.0.0.1 4243
python -m tests.examples.chat 4243      then the same in two terminals
"""
