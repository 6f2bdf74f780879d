#!/usr/bin/env bash
# aiokafka, version 0.14.0 (PyPI): a consumer goes on asking a former leader where a partition begins.
#
# Guess before the run: a consumer that is told NOT_LEADER_OR_FOLLOWER asks for the metadata, whatever it had asked, and goes to the
# leader; if it does not find it, the broker's metadata is stale.
# Seen: when it is refused the offset at which it is to begin, as nothing was committed, it writes an error, waits for retry_backoff_ms
# and asks the same node again, until something else fails or the metadata is metadata_max_age_ms old: five minutes. It is enough that
# leadership moves between its start and that question, as it does when a broker has been restarted and leads again.
# Who goes on at a commit is not concerned. A metadata_max_age_ms of some seconds bounds it.
#
# Needs python3 with venv; no broker. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check aiokafka==0.14.0
cat >"$folder/finding.py" <<'PYTHON'
import asyncio
import logging
from types import SimpleNamespace

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher, OffsetResetStrategy
from aiokafka.errors import NotLeaderForPartitionError

logging.disable()
asked = {"offset": 0, "metadata": 0}
orders = TopicPartition("orders", 0)


def ask_for_metadata():
    asked["metadata"] += 1


async def refuse(node, topics):
    asked["offset"] += 1
    raise NotLeaderForPartitionError()


async def main():
    fetcher = Fetcher.__new__(Fetcher)
    fetcher._client = SimpleNamespace(force_metadata_update=ask_for_metadata)
    fetcher._proc_offset_request = refuse
    fetcher._retry_backoff = 0
    state = SimpleNamespace(has_valid_position=False, awaiting_reset=True, reset_strategy=OffsetResetStrategy.EARLIEST)
    assignment = SimpleNamespace(state_value=lambda partition: state)
    for _ in range(3):
        await fetcher._update_fetch_positions(assignment, 1, [orders])


asyncio.run(main())
print(f"asked node 1 for the offset {asked['offset']} times, and for the metadata {asked['metadata']} times")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/finding.py")
expected='asked node 1 for the offset 3 times, and for the metadata 0 times'
printf '%s\n' "$seen"
if [[ "$seen" != "$expected" ]]; then
    printf 'The behaviour has changed; it was:\n%s\n' "$expected" >&2
    exit 1
fi
echo "As found: a refusal that says that another broker leads is no reason to look which."
