//! The longer texts of `--help`: what each workload does, and what its figures mean.

pub const EXAMPLES: &str = "\
Examples:
  headwater-bench quick                                   # is it fast here? about 10 seconds
  headwater-bench quick --record-size 100 --output json   # small records, for a script
  headwater-bench end-to-end --rate 10000 --record-size 100 --seconds 20 --report latency.html
  headwater-bench produce --seconds 30 --repeat 5 --output json
  headwater-bench consume --cold --bytes 4GB              # from the disk
  headwater-bench mixed --rate 50000 --catch-up-consumers 2
  headwater-bench mixed --partitions 6 --group-members 2 --slow-members 3 --catch-up-consumers 0
  headwater-bench quick --brokers 3 --partitions 3        # three brokers, three replicas of each partition
  headwater-bench failover --kills 10 --report failover.html   # what is seen of brokers that are killed
  headwater-bench sweep --axis record-size=100,1KiB,10KiB --axis linger=0ms,2ms --seconds 3
  headwater-bench churn                                   # does a broker give back what guests took? ten minutes
  headwater-bench limits                                  # what can the machine do at most? about 25 seconds
  headwater-bench limits --only disk,loopback,bare --repeat 5
  headwater-bench compare before.json after.json
  headwater-bench compare before.json after.json --fail-on worse:5%
  headwater-bench produce --server localhost:9292 --topic load --partitions 4 --producers 2
  headwater-bench consume --server localhost:9292 --topic load --verify

Exit status: 0 all well; 1 a record was lost, duplicated, reordered or altered; 2 it could not run, or there were records of \
others that could not be verified; 3 a figure is worse than compare --fail-on allows, or \
something grows under churn; 130 interrupted.";

pub const QUICK: &str = "\
Starts a broker in this process on a free port of 127.0.0.1 with its data on a real disk, produces to it with acks=all
(every record is on stable storage before it is acknowledged), consumes everything, and verifies every record: its place
in the order of its producer and partition, and its content.

MB/s counts the values of records, 10^6 bytes each; the stamps (24 bytes, with which records are verified) and headers of
batches come on top. Without --rate, latency is the time from the call that hands a record to the client until the client
tells of its acknowledgement; one record in 61 is measured, so that measuring costs nothing and every place in a batch has
its turn.

It ends with three lines: what share of the disk and of loopback this is, what bound it, and what to run next for latency.
Disk and loopback are looked at for a second before and after.

The data goes to a new directory in ./target if there is one, else in $TMPDIR, and is removed at the end. With --server
a running broker is measured instead.";

pub const PRODUCE: &str = "\
Produces to a broker in this process, or with --server to a running one.

Without --rate each producer sends as fast as the client takes records (closed loop): the figure is throughput, and the
latency is what records wait in full queues. With --rate records are due on a fixed schedule (open loop) and latency is
counted from when a record was due: if the broker stalls, every record that was due meanwhile counts what it waited, so a
stall cannot hide. Give a rate well below what the closed loop reaches. Every record is timed then. How late the bench
itself is, because it woke up late, is told apart and no part of the latency.

Afterwards everything is read back and verified, which is not in the figures. What the broker has deleted by then, as its
retention says, is not counted as lost.";

pub const CONSUME: &str = "\
Reads what is stored, as fast as it comes, and verifies it.

By default the bench fills a topic of a broker in this process first. Hot (the default) reads what was just written and is
still in the broker's memory, over and over until --seconds are over; cold reads once, after the broker was restarted and
the page cache was dropped for its files, so that every byte comes from the disk. --bytes says how much is filled in.

With --server and --topic it reads what is there, once, and with --verify checks that it is what `produce` has sent. Records
that something else has written cannot be verified: they are counted as foreign, and the exit status is 2.";

pub const END_TO_END: &str = "\
Producers and consumers at once. Latency is the time from when a record was due (with --rate) or was handed to the client
(without) until a consumer has it; the producers' own, until the acknowledgement, stands beside it. A consumer sees only
records that are acknowledged, hence durable.";

pub const MIXED: &str = "\
First producers and consumers at the tail alone, then the same with consumers that read old data from the disk at the same
time. The figures of both stand next to each other: what do readers of old data cost everybody else? Use --rate to compare
latencies, and leave it out to compare throughput. With --rate a bare program without a broker is measured as well, alone and next to
plain readers of as much old data: what these cost it is the disk's doing, not the broker's.

With --group-members a consumer group reads at the tail as well, and with --slow-members there is one more part, in which
another group misbehaves: one member in three sleeps over each record, one stops asking for records until it is put out of
its group, one dies every second without leaving and comes back. What does that cost producers, and the group that keeps
up? Use at least 20 seconds, since a session takes 6 to end, and --catch-up-consumers 0 to look at nothing else.";

pub const SWEEP: &str = "\
Runs a workload for every point of one axis, or of the grid of several, each with a fresh broker and topic, and prints one
table. Axes: record-size, batch-bytes, linger, producers, partitions, cores, acks, rate, system (headwater,kafka: Headwater by
its own protocol and by Kafka's, if built with it), and every knob of the broker, such as flush.delay_us=0us,50us. All other options stay as given.

With --repeat, the points take turns: a machine that is busy for a while is so at all of them. The last columns compare each
point with the first of the same turn: the median of the ratios, and from what to what they go.";

pub const COMPARE: &str = "\
Prints B as a ratio of A for each figure that both have, with the spread over their runs (use --repeat 5 or more). A
difference is called noise when the ranges of the two overlap: then no claim can be made from these runs.

With --fail-on worse:5% the exit status is 3 if any figure is worse, beyond noise, by more than 5%: for continuous
integration. It is 2 if that cannot be told: with fewer than three runs of each, or without a figure that both have.";
