#!/usr/bin/env bash
# confluent-kafka, version 2.16.1 (PyPI): an error of Kafka cannot be compared with None, nor looked for in a list.
#
# Guess before the run: `error == None` is False for a KafkaError, as `==` of Python answers for objects of different kinds; so
# `reports == [None]` says whether all delivery reports of a producer were without an error.
# Seen: the comparison takes the other side for a number. If it is none, it answers and leaves an exception behind, which whatever
# Python does next raises: a TypeError about integers, or a SystemError. So do `None in errors` and `errors == [None]`. In an `assert`
# with a message that message is lost.
# So a check that passes for years ends with an odd error on the day when a record was not delivered, and does not say why.
# `error is None` is safe.
#
# Needs python3 with venv. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check confluent-kafka==2.16.1
cat >"$folder/finding.py" <<'PYTHON'
from confluent_kafka import KafkaError

error = KafkaError(KafkaError._ALL_BROKERS_DOWN)


def hides_the_message():
    assert [error] == [None], "not delivered"


for name, compare in {
    "error == number": lambda: error == KafkaError._ALL_BROKERS_DOWN,
    "error == None": lambda: error == None,  # noqa: E711
    "[error] == [None]": lambda: [error] == [None],
    "None in [error]": lambda: None in [error],
    "error is None": lambda: error is None,
    "assert": hides_the_message,
}.items():
    try:
        print(f"{name}: {compare()}")
    except (TypeError, SystemError):
        print(f"{name}: raises")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/finding.py")
expected='error == number: True
error == None: raises
[error] == [None]: raises
None in [error]: raises
error is None: False
assert: raises'
printf '%s\n' "$seen"
if [[ "$seen" != "$expected" ]]; then
    printf 'The behaviour has changed; it was:\n%s\n' "$expected" >&2
    exit 1
fi
echo "As found: whoever compares an error with None gets another error."
