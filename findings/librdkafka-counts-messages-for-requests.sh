#!/usr/bin/env bash
# librdkafka, by confluent-kafka version 2.16.0 (PyPI): an idempotent producer has one request on its way for each partition.
#
# Guess before the run: up to max.in.flight requests, five at most, are on their way with idempotence as without.
# Seen: one, at times a second. rd_kafka_toppar_producer_serve allows a partition RD_KAFKA_IDEMP_MAX_INFLIGHT (5) less what is in flight, and what it takes
# off are messages, not requests: from the fifth message in flight on it sends nothing until all are acknowledged but four. So a batch goes
# out for each round trip, and throughput is batch.size by the time of that: 256 KiB in 2 ms are 130 MB/s, whatever the broker could do.
# Larger batches, more partitions, or doing without idempotence help. Proposed to be mended in confluentinc/librdkafka pull request 4989.
#
# Needs python3 with venv; the broker is librdkafka's own mock. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check confluent-kafka==2.16.0
cat >"$folder/finding.py" <<'PYTHON'
import json

from confluent_kafka import Producer


def most_at_once(is_idempotent):
    seen = [0]

    def look(statistics):
        for broker in json.loads(statistics)["brokers"].values():
            seen[0] = max(seen[0], broker["waitresp_cnt"])

    producer = Producer({
        "test.mock.num.brokers": 1,
        "test.mock.broker.rtt": 50,
        "enable.idempotence": is_idempotent,
        "acks": "all",
        "max.in.flight": 5,
        "batch.size": 16384,
        "linger.ms": 5,
        "statistics.interval.ms": 5,
        "stats_cb": look,
        "log_level": 0,
    })
    for _ in range(1000):
        producer.produce("orders", bytes(1024), partition=0)
        producer.poll(0)
    producer.flush(60)
    return seen[0]


# A second one may be seen before the first is counted as answered.
numbered = most_at_once(True)
numbered = "at most 2" if numbered <= 2 else numbered
print(f"requests on their way at once: {most_at_once(False)}, and {numbered} with idempotence")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/finding.py")
expected='requests on their way at once: 5, and at most 2 with idempotence'
printf '%s\n' "$seen"
if [[ "$seen" != "$expected" ]]; then
    printf 'The behaviour has changed; it was:\n%s\n' "$expected" >&2
    exit 1
fi
