#!/usr/bin/env bash
# kafka-python, version 3.0.12 (PyPI): a consumer may never ask where the topic is that it subscribes to.
#
# Guess before the run: a topic that is subscribed to while an answer on metadata is under way is asked for next, as the answer knows
# nothing of it.
# Seen: whatever answer comes clears the wish for another one, also one that was asked for before the topic was named. The next question
# is due after metadata_max_age_ms, five minutes. `KafkaConsumer("orders", ...)` subscribes while the client's first question is on its
# way, so some consumers without a group get no partition and read nothing: 3 of 78 with Kafka 4.4.0, on two busy CPUs.
# `consumer.poll()` says nothing of it. A consumer that has been told nothing for some seconds can be closed and made again; or
# metadata_max_age_ms be some seconds.
#
# Needs python3 with venv; no broker. Fails if the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check kafka-python==3.0.12
cat >"$folder/finding.py" <<'PYTHON'
from kafka.cluster import ClusterMetadata
from kafka.protocol.metadata import MetadataResponse

cluster = ClusterMetadata(bootstrap_servers="127.0.0.1:9092")
broker = MetadataResponse.MetadataResponseBroker(version=8, node_id=0, host="127.0.0.1", port=9092, rack=None)
asked = cluster.metadata_request()
print(f"asked for {[topic.name for topic in asked.topics]}")
cluster.set_topics(["orders"])
print(f"subscribed: asks again in {cluster.ttl() / 1000:.0f} s")
answer = MetadataResponse(version=8, throttle_time_ms=0, brokers=[broker], cluster_id="x", controller_id=0, topics=[])
cluster.update_metadata(answer)
print(f"answered: asks again in {cluster.ttl() / 1000:.0f} s, partitions {cluster.partitions_for_topic('orders')}")
PYTHON
seen=$("$folder/venv/bin/python" "$folder/finding.py" )
expected='asked for []
subscribed: asks again in 0 s
answered: asks again in 300 s, partitions None'
printf '%s\n' "$seen"
if [[ "$seen" != "$expected" ]]; then
    printf 'The behaviour has changed; it was:\n%s\n' "$expected" >&2
    exit 1
fi
echo "As found: the topic that was subscribed to meanwhile is not asked for."
