"""What the scenarios in Python share: steps told one a line, the records to send, and the ledger that judges what came back.

`run BOOTSTRAP PREFIX`; from the environment REPLICAS, and FAILOVER_FILE if a broker is to be killed while records are sent.
"""

import asyncio
import inspect
import os
import subprocess
import sys
import threading
import time
import traceback
import typing

BOOTSTRAP, PREFIX = sys.argv[1:3]
REPLICAS = int(os.environ.get("REPLICAS", "1"))
FAILOVER_FILE = os.environ.get("FAILOVER_FILE")
# This process is the member of a group that gets killed.
IS_MEMBER = sys.argv[3:] == ["member"]

TOPIC = f"{PREFIX}-orders"
PARTITIONS = 3
SECONDS_MAX = 58

_steps = []
_current = "start"


def step(name):
    """Marks a function, or a coroutine function, as a step."""

    def mark(function):
        _steps.append((name, function))
        return function

    return mark


def run():
    """Runs all steps in their order and ends the process: with 0 only if all are ok."""
    global _current
    _end_in_time()
    failed = False
    with asyncio.Runner() as runner:
        for _current, function in _steps:
            try:
                result = function()
                if inspect.iscoroutine(result):
                    runner.run(result)
                print(f"ok {_current}", flush=True)
            except Exception as error:  # The next steps tell more about what is wrong.
                failed = True
                frames = traceback.extract_tb(error.__traceback__)
                line = [frame.lineno for frame in frames if frame.filename == sys.argv[0]][-1]
                why = f"{type(error).__name__}: {error} (line {line})"
                print(f"FAILED {_current}: {' '.join(why.split())}", flush=True)
    sys.exit(failed)


def _end_in_time():
    def end():
        print(f"FAILED {_current}: not done after {SECONDS_MAX} s in all", flush=True)
        os._exit(1)

    timer = threading.Timer(SECONDS_MAX, end)
    timer.daemon = True
    timer.start()


def eventually(is_so, what, seconds=15):
    """What one broker has done the others know a moment later."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {seconds} s: {what}"
        time.sleep(0.1)


class Record(typing.NamedTuple):
    """As it is sent, and as it must come back."""

    key: bytes | None
    value: bytes | None
    headers: list
    timestamp: int


def new_records(codec, count=100):
    """Records of all kinds, to be sent in this order."""
    for _ in range(count):
        number = len(ledger.records)
        key = None if number % 5 == 0 else b"key %d" % (number % 23)
        # Without a value it is a tombstone, which only a key gives a meaning.
        value = None if key and number % 11 == 0 else b"%s %d %s" % (codec.encode(), number, b"." * (number % 300))
        headers = [("codec", codec.encode()), ("codec", b"again"), ("empty", b"")] if number % 3 == 0 else []
        record = Record(key, value, headers, ledger.first_timestamp + 100 * number)
        ledger.records.append(record)
        yield number, record


def pause_before(number):
    """Seconds to wait before this record: from the middle on a broker may be killed, which must not be over before it begins."""
    if not FAILOVER_FILE or number < 250:
        return 0
    if number == 250:
        open(FAILOVER_FILE, "w").close()
    return 0.02


class Ledger:
    """All records, and where each was stored."""

    def __init__(self):
        self.records = []
        self.places = {}  # number of the record -> (partition, offset)
        self.first_timestamp = int(time.time() * 1000) - 3_600_000

    def stored(self, number, partition, offset):
        self.places[number] = (partition, offset)

    def by_place(self):
        return {place: self.records[number] for number, place in self.places.items()}

    def judge(self, found):
        """Each record is there, once, as it was sent. `found`: (partition, offset, Record), as it was read."""
        assert len(self.places) == len(self.records), "not all records were acknowledged"
        expected = self.by_place()
        assert len(expected) == len(self.records), "two records are said to be at the same place"
        assert len(found) == len(self.records), f"{len(self.records)} records were sent, {len(found)} are there"
        for partition, offset, record in found:
            sent = expected.get((partition, offset))
            assert record == sent, f"{partition}@{offset} is {record}, sent was {sent}"
        last = {}
        for number, (partition, offset) in sorted(self.places.items()):
            key = self.records[number].key
            if key is not None:
                assert last.get(key, (partition, -1)) < (partition, offset), f"{key} is out of order"
                assert last.get(key, (partition, -1))[0] == partition, f"{key} is in two partitions"
                last[key] = (partition, offset)

    def timestamp_in_the_middle(self):
        """A time, and for each partition the first offset from it on."""
        timestamp = self.records[len(self.records) // 2].timestamp
        later = [place for place, record in self.by_place().items() if record.timestamp >= timestamp]
        return timestamp, {p: min(o for partition, o in later if partition == p) for p in range(PARTITIONS)}


ledger = Ledger()


class Member:
    """Another process with this program, which is a member of the group and tells what it sees: a partition and an offset a line.

    It is slow, so that it has by far not seen everything when it is killed.
    """

    def __init__(self):
        self.seen = set()
        self.is_killed = False
        command = [sys.executable, sys.argv[0], BOOTSTRAP, PREFIX, "member"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        eventually(lambda: len(self.seen) > 10, "the other member has read records")

    def _read(self):
        for line in self.process.stdout:
            partition, offset = line.split()
            self.seen.add((int(partition), int(offset)))

    def kill(self):
        """SIGKILL: it says goodbye to nobody."""
        self.is_killed = True
        self.process.kill()
        self.process.wait()
        self.reader.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def tell(partition, offset):
    """What the other member has seen."""
    print(partition, offset, flush=True)
