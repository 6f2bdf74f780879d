import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** What a program that uses Kafka's own Java client does with a broker, step by step: run BOOTSTRAP PREFIX. */
public final class Scenario {
    private static final int PARTITIONS = 3;
    private static final int RECORDS_A_CODEC = 60;
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    private final String bootstrap;
    private final String topic;
    private final String unsafe; // the topic for records that are not acknowledged by all replicas
    private final String group;
    private final String protocol; // of the group: GROUP_PROTOCOL=consumer tries the newer one, where the broker offers it
    private final String failover = System.getenv("FAILOVER_FILE");
    private final long start = System.currentTimeMillis() - 3_600_000;
    private final Admin admin;
    private final List<String> sent = new ArrayList<>();
    private final Map<Integer, List<ConsumerRecord<String, String>>> read = new HashMap<>();
    private boolean failed;

    private interface Step {
        void run() throws Exception;
    }

    private Scenario(String bootstrap, String prefix) throws Exception {
        this.bootstrap = bootstrap;
        topic = prefix + "-records";
        unsafe = prefix + "-unsafe";
        group = prefix + "-group";
        admin = Admin.create(settings());
        protocol = "consumer".equals(System.getenv("GROUP_PROTOCOL")) && offersNewerGroups() ? "consumer" : "classic";
    }

    public static void main(String[] args) throws Exception {
        if (args.length == 4 && args[0].equals("member")) {
            new Scenario(args[1], args[2].replaceAll("-records$", "")).member();
        } else if (args.length == 2) {
            Scenario scenario = new Scenario(args[0], args[1]);
            scenario.all();
            // Not an orderly end: a step that failed may have left something behind that waits for the broker.
            Runtime.getRuntime().halt(scenario.failed ? 1 : 0);
        } else {
            System.out.println("usage: run BOOTSTRAP PREFIX");
            System.exit(2);
        }
    }

    private boolean offersNewerGroups() throws Exception {
        return admin.describeFeatures().featureMetadata().get().finalizedFeatures().containsKey("group.version");
    }

    private void all() {
        step("create topics", this::create);
        step("produce with every codec", this::produce);
        step("read all", this::readAll);
        step("produce with acks 1 and 0", this::produceUnsafe);
        step("group of two, one killed", this::consume);
        step("resume at the commit", this::resume);
        step("seek by timestamp", this::seek);
        step("list and describe topics", this::topics);
        step("list and describe groups, lag", this::groups);
        step("alter a topic's configuration", this::config);
        step("delete records", this::deleteRecords);
        step("add partitions", this::addPartitions);
        step("delete group and topics", this::delete);
    }

    private void step(String name, Step step) {
        try {
            step.run();
            System.out.println("ok " + name);
        } catch (Exception | AssertionError e) {
            failed = true;
            System.out.println("FAILED " + name + ": " + e);
        }
    }

    private void create() throws Exception {
        short replicas = Short.parseShort(Optional.ofNullable(System.getenv("REPLICAS")).orElse("1"));
        admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, replicas), new NewTopic(unsafe, PARTITIONS, replicas)))
                .all().get();
    }

    /** Sends the records of all codecs, idempotently (the client's default). All must be acknowledged. */
    private void produce() throws Exception {
        for (String codec : CODECS) {
            Properties settings = settings();
            settings.put("compression.type", codec);
            settings.put("delivery.timeout.ms", 40_000);
            settings.put("request.timeout.ms", 10_000);
            settings.put("linger.ms", 5);
            ConcurrentLinkedQueue<Exception> errors = new ConcurrentLinkedQueue<>();
            try (KafkaProducer<String, String> producer =
                    new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
                for (int n = 0; n < RECORDS_A_CODEC; n++) {
                    String id = "%s-%03d".formatted(codec, n);
                    ProducerRecord<String, String> record = new ProducerRecord<>(topic, null, start + sent.size() * 1000L,
                            n % 3 == 0 ? null : "key-" + n % 5, n % 10 == 9 ? null : "value of " + id);
                    record.headers().add("id", id.getBytes(StandardCharsets.UTF_8)).add(new RecordHeader("empty", null));
                    producer.send(record, (metadata, error) -> {
                        if (error != null) {
                            errors.add(error);
                        }
                    });
                    sent.add(id);
                    if (failover != null) {
                        if (codec.equals("gzip") && n == 0) {
                            Files.createFile(Path.of(failover));
                        }
                        Thread.sleep(20);
                    }
                }
            }
            if (!errors.isEmpty()) {
                throw errors.peek();
            }
        }
    }

    /** Reads each partition from its start to its end: every record once, those of a key in order, each as it was sent. */
    private void readAll() throws Exception {
        Map<String, Integer> place = new HashMap<>();
        for (int at = 0; at < sent.size(); at++) {
            place.put(sent.get(at), at);
        }
        Map<String, Integer> lastOfKey = new HashMap<>();
        Set<String> seen = new HashSet<>();
        try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
            List<TopicPartition> all = partitions();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            long until = System.currentTimeMillis() + 15_000;
            while (all.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                check(System.currentTimeMillis() < until, "only " + seen.size() + " records could be read");
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    String id = idOf(record);
                    check(seen.add(id), id + " was read twice");
                    read.computeIfAbsent(record.partition(), p -> new ArrayList<>()).add(record);
                    check(record.timestamp() == start + place.get(id) * 1000L, id + " has the timestamp " + record.timestamp());
                    check(id.endsWith("9") == (record.value() == null), id + " has the value " + record.value());
                    if (record.key() != null) {
                        Integer last = lastOfKey.put(record.key(), place.get(id));
                        check(last == null || last < place.get(id), id + " came too late");
                    }
                }
            }
        }
        check(seen.equals(Set.copyOf(sent)), seen.size() + " records instead of " + sent.size());
    }

    private void produceUnsafe() throws Exception {
        for (String acks : List.of("1", "0")) {
            Properties settings = settings();
            settings.put("acks", acks);
            settings.put("enable.idempotence", false);
            try (KafkaProducer<String, String> producer =
                    new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
                for (int n = 0; n < 10; n++) {
                    producer.send(new ProducerRecord<>(unsafe, "" + n)).get();
                }
            }
        }
        eventually(() -> {
            Map<TopicPartition, OffsetSpec> latest = IntStream.range(0, PARTITIONS).boxed()
                    .collect(Collectors.toMap(n -> new TopicPartition(unsafe, n), n -> OffsetSpec.latest()));
            long total = admin.listOffsets(latest).all().get().values().stream().mapToLong(end -> end.offset()).sum();
            // Nobody knows whether a record with acks 0 arrives at a broker that is not the leader any more.
            check(total == 20 || failover != null && total >= 10, total + " records instead of 20");
        });
    }

    /** The second member of the group, in a process of its own: it says "record" for each that it reads until it is killed. */
    private void member() {
        try (KafkaConsumer<String, String> consumer = groupMember()) {
            Thread me = Thread.currentThread();
            Runtime.getRuntime().addShutdownHook(new Thread(() -> {
                consumer.wakeup();
                try {
                    me.join(5000);
                } catch (InterruptedException e) {
                    me.interrupt();
                }
            }));
            consumer.subscribe(List.of(topic));
            for (long until = System.currentTimeMillis() + 50_000; System.currentTimeMillis() < until; ) {
                consumer.poll(Duration.ofMillis(200)).forEach(record -> System.out.println("record"));
            }
        } catch (WakeupException e) {
            // It was asked to end, and has left the group.
        }
    }

    /** Kills the second member after it has read something: the first gets its partitions and reads all that was not committed. */
    private void consume() throws Exception {
        ProcessHandle.Info me = ProcessHandle.current().info();
        Process other = new ProcessBuilder(me.command().orElseThrow(), "-XX:TieredStopAtLevel=1", "-cp",
                System.getProperty("java.class.path"), "Scenario", "member", bootstrap, topic, group).start();
        try (KafkaConsumer<String, String> consumer = groupMember()) {
            check("record".equals(other.inputReader().readLine()), "the second member reads nothing");
            Set<String> seen = new HashSet<>();
            // The position of a partition that came back may be behind what was read before.
            Map<TopicPartition, OffsetAndMetadata> done = new HashMap<>();
            boolean shared = false;
            consumer.subscribe(List.of(topic));
            long until = System.currentTimeMillis() + 30_000;
            while (consumer.assignment().size() < PARTITIONS || seen.size() < sent.size()) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    seen.add(idOf(record));
                    done.merge(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1),
                            (one, two) -> one.offset() > two.offset() ? one : two);
                }
                if (!consumer.assignment().isEmpty() && consumer.assignment().size() < PARTITIONS && !shared) {
                    shared = true;
                    if (protocol.equals("classic")) {
                        other.destroyForcibly();
                    } else {
                        other.destroy(); // in order, as a broker by default gives a member of these groups up after 45 s only
                    }
                }
                check(System.currentTimeMillis() < until,
                        seen.size() + " of " + sent.size() + " records, " + consumer.assignment());
            }
            check(shared, "the two members never shared the partitions");
            check(seen.equals(Set.copyOf(sent)), "other records than were sent");
            consumer.commitSync(done);
        } finally {
            other.destroyForcibly().waitFor();
        }
    }

    /** Writes one more record: a new member sees this one and none that was committed. */
    private void resume() throws Exception {
        try (KafkaProducer<String, String> producer =
                new KafkaProducer<>(settings(), new StringSerializer(), new StringSerializer());
                KafkaConsumer<String, String> consumer = groupMember()) {
            ProducerRecord<String, String> record = new ProducerRecord<>(topic, "more");
            record.headers().add("id", "resume-000".getBytes(StandardCharsets.UTF_8));
            producer.send(record).get();
            consumer.subscribe(List.of(topic));
            List<String> seen = new ArrayList<>();
            for (long until = System.currentTimeMillis() + 15_000; seen.isEmpty() && System.currentTimeMillis() < until; ) {
                consumer.poll(Duration.ofMillis(200)).forEach(got -> seen.add(idOf(got)));
            }
            check(seen.equals(List.of("resume-000")), "it read " + seen);
            consumer.commitSync();
        }
    }

    private void seek() {
        long middle = start + sent.size() / 2 * 1000L;
        try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
            List<TopicPartition> all = partitions();
            consumer.assign(all);
            Map<TopicPartition, Long> times = all.stream().collect(Collectors.toMap(p -> p, p -> middle));
            Set<Integer> waiting = new HashSet<>();
            consumer.offsetsForTimes(times).forEach((partition, found) -> {
                Optional<Long> wanted = read.getOrDefault(partition.partition(), List.of()).stream()
                        .filter(record -> record.timestamp() >= middle).map(ConsumerRecord::offset).findFirst();
                wanted.ifPresent(offset -> {
                    check(found != null && found.offset() == offset, partition + ": " + found + " instead of " + offset);
                    consumer.seek(partition, found.offset());
                    waiting.add(partition.partition());
                });
            });
            for (long until = System.currentTimeMillis() + 10_000; !waiting.isEmpty(); ) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    check(!waiting.remove(record.partition()) || record.timestamp() >= middle, "an earlier record was read");
                }
                check(System.currentTimeMillis() < until, "nothing was read from " + waiting);
            }
        }
    }

    private void topics() throws Exception {
        check(admin.listTopics().names().get().contains(topic), "it is not listed");
        admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().forEach(partition ->
                check(partition.leader() != null && !partition.isr().isEmpty(), "a partition without a leader: " + partition));
        check(admin.describeCluster().nodes().get().size() > 0, "no nodes are described");
    }

    private void groups() throws Exception {
        check(admin.listGroups().all().get().stream().map(GroupListing::groupId).anyMatch(group::equals), "it is not listed");
        eventually(() -> {
            GroupState state = admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState();
            check(state == GroupState.EMPTY, "the state is " + state);
        });
        try (KafkaConsumer<String, String> consumer = consumer(Map.of())) {
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions());
            var committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            ends.forEach((partition, end) ->
                    check(committed.get(partition).offset() == end, partition + ": " + committed.get(partition) + ", end " + end));
        }
    }

    private void config() throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("retention.ms", "86400000"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get();
        eventually(() -> {
            ConfigEntry entry = admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.ms");
            check(entry.value().equals("86400000"), "it is " + entry);
            check(entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "its source is " + entry.source());
        });
    }

    private void deleteRecords() throws Exception {
        TopicPartition first = new TopicPartition(topic, 0);
        long low = admin.deleteRecords(Map.of(first, RecordsToDelete.beforeOffset(5))).lowWatermarks().get(first).get().lowWatermark();
        check(low == 5, "the low watermark is " + low);
        long earliest = admin.listOffsets(Map.of(first, OffsetSpec.earliest())).partitionResult(first).get().offset();
        check(earliest == 5, "the partition begins at " + earliest);
    }

    private void addPartitions() throws Exception {
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(PARTITIONS + 1))).all().get();
        eventually(() -> {
            int has = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().size();
            check(has == PARTITIONS + 1, has + " partitions");
        });
    }

    private void delete() throws Exception {
        admin.deleteConsumerGroups(List.of(group)).all().get();
        admin.deleteTopics(List.of(topic, unsafe)).all().get();
        eventually(() -> {
            Set<String> left = admin.listTopics().names().get();
            check(!left.contains(topic) && !left.contains(unsafe), "a topic is still listed");
        });
    }

    private Properties settings() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("default.api.timeout.ms", 20_000);
        settings.put("request.timeout.ms", 10_000);
        return settings;
    }

    private KafkaConsumer<String, String> consumer(Map<String, Object> more) {
        Properties settings = settings();
        settings.put("enable.auto.commit", false);
        settings.put("auto.offset.reset", "earliest");
        settings.putAll(more);
        return new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer());
    }

    /** A member of the group that loses its place after 6 s of silence. */
    private KafkaConsumer<String, String> groupMember() {
        Map<String, Object> settings = new HashMap<>(Map.of("group.id", group, "group.protocol", protocol));
        if (protocol.equals("classic")) { // with the newer protocol the broker says when it gives up a member
            settings.put("session.timeout.ms", 6000);
            settings.put("heartbeat.interval.ms", 500);
        }
        return consumer(settings);
    }

    private List<TopicPartition> partitions() {
        return IntStream.range(0, PARTITIONS).mapToObj(n -> new TopicPartition(topic, n)).toList();
    }

    private static String idOf(ConsumerRecord<String, String> record) {
        return new String(record.headers().lastHeader("id").value(), StandardCharsets.UTF_8);
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    /** Tries again for ten seconds, as brokers may learn of a change a little later than it is acknowledged. */
    private static void eventually(Step step) throws Exception {
        for (long until = System.currentTimeMillis() + 10_000; ; Thread.sleep(100)) {
            try {
                step.run();
                return;
            } catch (Exception | AssertionError e) {
                if (System.currentTimeMillis() > until) {
                    throw e;
                }
            }
        }
    }
}
