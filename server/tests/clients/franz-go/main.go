// What a program that uses franz-go does with a broker, step by step: run BOOTSTRAP PREFIX.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions    = 3
	recordsACodec = 60
)

var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{
	{"none", kgo.NoCompression()},
	{"gzip", kgo.GzipCompression()},
	{"snappy", kgo.SnappyCompression()},
	{"lz4", kgo.Lz4Compression()},
	{"zstd", kgo.ZstdCompression()},
}

// scenario is what the steps share: each fills in what later ones need.
type scenario struct {
	seeds    []string
	topic    string
	unsafe   string // the topic for records that are not acknowledged by all replicas
	group    string
	failover string
	admin    *kadm.Client
	acked    []string // the ids of all acknowledged records, in the order they were sent
	start    time.Time
	read     map[int32][]*kgo.Record
}

func main() {
	if len(os.Args) == 5 && os.Args[1] == "member" {
		member(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	if len(os.Args) != 3 {
		fmt.Println("usage: run BOOTSTRAP PREFIX")
		os.Exit(2)
	}
	s := &scenario{
		seeds:    strings.Split(os.Args[1], ","),
		topic:    os.Args[2] + "-records",
		unsafe:   os.Args[2] + "-unsafe",
		group:    os.Args[2] + "-group",
		failover: os.Getenv("FAILOVER_FILE"),
		start:    time.Now().Add(-time.Hour).Truncate(time.Millisecond),
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(s.seeds...))
	if err != nil {
		fmt.Println("FAILED connect:", err)
		os.Exit(1)
	}
	defer client.Close()
	s.admin = kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), 58*time.Second)
	defer cancel()
	failed := false
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"create topics", s.create},
		{"produce with every codec", s.produce},
		{"read all", s.readAll},
		{"produce with acks 1 and 0", s.produceUnsafe},
		{"group of two, one killed", s.consume},
		{"resume at the commit", s.resume},
		{"seek by timestamp", s.seek},
		{"list and describe topics", s.topics},
		{"list and describe groups, lag", s.groups},
		{"alter a topic's configuration", s.config},
		{"delete records", s.deleteRecords},
		{"add partitions", s.addPartitions},
		{"delete group and topics", s.delete},
	} {
		if err := step.run(ctx); err != nil {
			failed = true
			fmt.Printf("FAILED %s: %v\n", step.name, err)
		} else {
			fmt.Println("ok", step.name)
		}
	}
	if failed {
		os.Exit(1)
	}
}

func (s *scenario) create(ctx context.Context) error {
	replicas := int64(1)
	if text := os.Getenv("REPLICAS"); text != "" {
		var err error
		if replicas, err = strconv.ParseInt(text, 10, 16); err != nil {
			return err
		}
	}
	made, err := s.admin.CreateTopics(ctx, partitions, int16(replicas), nil, s.topic, s.unsafe)
	if err != nil {
		return err
	}
	return made.Error()
}

// produce sends the records of all codecs, idempotently (the client's default), and notes those that were acknowledged.
func (s *scenario) produce(ctx context.Context) error {
	for at, codec := range codecs {
		client, err := kgo.NewClient(kgo.SeedBrokers(s.seeds...), kgo.ProducerBatchCompression(codec.codec))
		if err != nil {
			return err
		}
		var lost error
		acked := make(map[string]bool)
		for n := range recordsACodec {
			id := fmt.Sprintf("%s-%03d", codec.name, n)
			record := &kgo.Record{
				Topic:     s.topic,
				Value:     []byte("value of " + id),
				Headers:   []kgo.RecordHeader{{Key: "id", Value: []byte(id)}, {Key: "empty"}},
				Timestamp: s.start.Add(time.Duration(at*recordsACodec+n) * time.Second),
			}
			if n%3 != 0 {
				record.Key = fmt.Appendf(nil, "key-%d", n%5)
			}
			if n%10 == 9 {
				record.Value = nil
			}
			client.Produce(ctx, record, func(_ *kgo.Record, err error) {
				lost = errors.Join(lost, err)
				acked[id] = err == nil
			})
			if s.failover != "" {
				if at == 1 && n == 0 {
					if err := os.WriteFile(s.failover, nil, 0o600); err != nil {
						return err
					}
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
		err = errors.Join(client.Flush(ctx), lost)
		client.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", codec.name, err)
		}
		for n := range recordsACodec {
			if id := fmt.Sprintf("%s-%03d", codec.name, n); acked[id] {
				s.acked = append(s.acked, id)
			}
		}
	}
	return nil
}

// readAll reads each partition from its start to its end: every acknowledged record once, those of a key in order, each as it was sent.
func (s *scenario) readAll(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.seeds...), kgo.ConsumeTopics(s.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := s.admin.ListEndOffsets(ctx, s.topic)
	if err != nil {
		return err
	}
	missing := int64(0)
	ends.Each(func(end kadm.ListedOffset) { missing += end.Offset })
	s.read = make(map[int32][]*kgo.Record)
	seen := make(map[string]int)
	lastOfKey := make(map[string]int)
	place := make(map[string]int)
	for at, id := range s.acked {
		place[id] = at
	}
	for missing > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("%d records missing: %w", missing, err)
		}
		for record := range fetches.RecordsAll() {
			missing--
			id := idOf(record)
			seen[id]++
			s.read[record.Partition] = append(s.read[record.Partition], record)
			if want := s.start.Add(time.Duration(place[id]) * time.Second); !record.Timestamp.Equal(want) {
				return fmt.Errorf("%s has the timestamp %v, not %v", id, record.Timestamp, want)
			}
			if tombstone := strings.HasSuffix(id, "9"); tombstone != (record.Value == nil) {
				return fmt.Errorf("%s has the value %q", id, record.Value)
			}
			if record.Key != nil {
				if last, ok := lastOfKey[string(record.Key)]; ok && last >= place[id] {
					return fmt.Errorf("%s of %s came after %s", id, record.Key, s.acked[last])
				}
				lastOfKey[string(record.Key)] = place[id]
			}
		}
	}
	for _, id := range s.acked {
		if seen[id] != 1 {
			return fmt.Errorf("%s was read %d times", id, seen[id])
		}
	}
	return nil
}

func (s *scenario) produceUnsafe(ctx context.Context) error {
	for _, acks := range []kgo.Acks{kgo.LeaderAck(), kgo.NoAck()} {
		client, err := kgo.NewClient(kgo.SeedBrokers(s.seeds...), kgo.RequiredAcks(acks), kgo.DisableIdempotentWrite())
		if err != nil {
			return err
		}
		for n := range 10 {
			if err := client.ProduceSync(ctx, &kgo.Record{Topic: s.unsafe, Value: fmt.Append(nil, n)}).FirstErr(); err != nil {
				return err
			}
		}
		client.Close()
	}
	return eventually(ctx, func() error {
		ends, err := s.admin.ListEndOffsets(ctx, s.unsafe)
		if err != nil {
			return err
		}
		total := int64(0)
		ends.Each(func(end kadm.ListedOffset) { total += end.Offset })
		// Nobody knows whether a record with acks 0 arrives at a broker that is not the leader any more.
		if total == 20 || s.failover != "" && total >= 10 {
			return nil
		}
		return fmt.Errorf("%d records instead of 20", total)
	})
}

// groupClient is a member of the group that loses its place after 6 s of silence, and commits only when asked to.
func groupClient(seeds []string, topic, group string, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(more, kgo.SeedBrokers(seeds...), kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))...)
}

// member is the second member of the group, in a process of its own: it says "record" for each that it reads until it is killed.
func member(bootstrap, topic, group string) {
	client, err := groupClient(strings.Split(bootstrap, ","), topic, group)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(*kgo.Record) { fmt.Println("record") })
	}
}

// consume kills the second member after it has read something: the first gets its partitions and reads all that was not committed.
func (s *scenario) consume(ctx context.Context) error {
	other := exec.CommandContext(ctx, os.Args[0], "member", strings.Join(s.seeds, ","), s.topic, s.group)
	output, err := other.StdoutPipe()
	if err != nil {
		return err
	}
	if err := other.Start(); err != nil {
		return err
	}
	defer other.Wait() //nolint:errcheck // it was killed
	defer other.Process.Kill()
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "record\n" {
		return fmt.Errorf("the second member said %q: %w", line, err)
	}
	assigned := make(chan int, 100)
	owned := 0
	client, err := groupClient(s.seeds, s.topic, s.group,
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			owned += len(got[s.topic])
			assigned <- owned
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { owned -= len(gone[s.topic]) }))
	if err != nil {
		return err
	}
	defer client.Close()
	seen := make(map[string]bool)
	// What was read of a partition that came back is not read again at once: the last record of each is what is to be committed.
	last := make(map[int32]*kgo.Record)
	shared := false
	for now := 0; now < partitions || len(seen) < len(s.acked); {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		fetches := client.PollFetches(short)
		cancel()
		fetches.EachRecord(func(record *kgo.Record) {
			seen[idOf(record)] = true
			if before := last[record.Partition]; before == nil || before.Offset < record.Offset {
				last[record.Partition] = record
			}
		})
		for len(assigned) > 0 {
			now = <-assigned
		}
		if now > 0 && now < partitions && !shared {
			shared = true
			other.Process.Kill()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d records, %d partitions: %w", len(seen), len(s.acked), now, ctx.Err())
		}
	}
	if !shared {
		return errors.New("the two members never shared the partitions")
	}
	for _, id := range s.acked {
		if !seen[id] {
			return fmt.Errorf("%s was not seen", id)
		}
	}
	return client.CommitRecords(ctx, slices.Collect(maps.Values(last))...)
}

// resume writes one more record: a new member sees this one and none that was committed.
func (s *scenario) resume(ctx context.Context) error {
	client, err := groupClient(s.seeds, s.topic, s.group)
	if err != nil {
		return err
	}
	defer client.Close()
	id := "resume-000"
	record := &kgo.Record{Topic: s.topic, Headers: []kgo.RecordHeader{{Key: "id", Value: []byte(id)}}, Value: []byte("more")}
	if err := client.ProduceSync(ctx, record).FirstErr(); err != nil {
		return err
	}
	fetches := client.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		return err
	}
	for record := range fetches.RecordsAll() {
		if idOf(record) != id {
			return fmt.Errorf("%s was read again", idOf(record))
		}
	}
	return client.CommitUncommittedOffsets(ctx)
}

func (s *scenario) seek(ctx context.Context) error {
	middle := s.start.Add(time.Duration(len(s.acked)/2) * time.Second)
	found, err := s.admin.ListOffsetsAfterMilli(ctx, middle.UnixMilli(), s.topic)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return err
	}
	from := make(map[int32]kgo.Offset)
	for partition, records := range s.read {
		for _, record := range records {
			if !record.Timestamp.Before(middle) {
				if got, _ := found.Lookup(s.topic, partition); got.Offset != record.Offset {
					return fmt.Errorf("partition %d: offset %d instead of %d", partition, got.Offset, record.Offset)
				}
				from[partition] = kgo.NewOffset().AfterMilli(middle.UnixMilli())
				break
			}
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(s.seeds...), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: from}))
	if err != nil {
		return err
	}
	defer client.Close()
	started := make(map[int32]bool)
	for len(started) < len(from) {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for record := range fetches.RecordsAll() {
			if !started[record.Partition] && record.Timestamp.Before(middle) {
				return fmt.Errorf("partition %d begins at %v, before %v", record.Partition, record.Timestamp, middle)
			}
			started[record.Partition] = true
		}
	}
	return nil
}

func (s *scenario) topics(ctx context.Context) error {
	all, err := s.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	topic, ok := all[s.topic]
	if !ok || topic.Err != nil || len(topic.Partitions) != partitions {
		return fmt.Errorf("%s is not listed with %d partitions: %+v", s.topic, partitions, topic)
	}
	for _, partition := range topic.Partitions.Sorted() {
		if partition.Leader < 0 || len(partition.Replicas) == 0 {
			return fmt.Errorf("partition %d: %+v", partition.Partition, partition)
		}
	}
	return nil
}

func (s *scenario) groups(ctx context.Context) error {
	all, err := s.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	if _, ok := all[s.group]; !ok {
		return fmt.Errorf("%s is not listed", s.group)
	}
	return eventually(ctx, func() error {
		lags, err := s.admin.Lag(ctx, s.group)
		if err != nil {
			return err
		}
		lag := lags[s.group]
		if err := lag.Error(); err != nil {
			return err
		}
		if lag.State != "Empty" || lag.Lag.Total() != 0 || len(lag.Lag[s.topic]) != partitions {
			return fmt.Errorf("state %s, lag %d of %d partitions", lag.State, lag.Lag.Total(), len(lag.Lag[s.topic]))
		}
		return nil
	})
}

func (s *scenario) config(ctx context.Context) error {
	value := "86400000"
	altered, err := s.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, s.topic)
	if err != nil {
		return err
	}
	if _, err := altered.On(s.topic, nil); err != nil {
		return err
	}
	return eventually(ctx, func() error {
		described, err := s.admin.DescribeTopicConfigs(ctx, s.topic)
		if err != nil {
			return err
		}
		topic, err := described.On(s.topic, nil)
		if err != nil {
			return err
		}
		for _, config := range topic.Configs {
			if config.Key == "retention.ms" && config.MaybeValue() == value {
				return nil
			}
		}
		return errors.New("retention.ms is not what was set")
	})
}

func (s *scenario) deleteRecords(ctx context.Context) error {
	var offsets kadm.Offsets
	offsets.AddOffset(s.topic, 0, 5, -1)
	deleted, err := s.admin.DeleteRecords(ctx, offsets)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		return err
	}
	starts, err := s.admin.ListStartOffsets(ctx, s.topic)
	if err != nil {
		return err
	}
	if start, _ := starts.Lookup(s.topic, 0); start.Offset != 5 {
		return fmt.Errorf("the partition begins at %d instead of 5", start.Offset)
	}
	return nil
}

func (s *scenario) addPartitions(ctx context.Context) error {
	added, err := s.admin.CreatePartitions(ctx, 1, s.topic)
	if err == nil {
		err = added.Error()
	}
	if err != nil {
		return err
	}
	return eventually(ctx, func() error {
		topics, err := s.admin.ListTopics(ctx, s.topic)
		if err != nil {
			return err
		}
		if has := len(topics[s.topic].Partitions); has != partitions+1 {
			return fmt.Errorf("%d partitions", has)
		}
		return nil
	})
}

func (s *scenario) delete(ctx context.Context) error {
	groups, err := s.admin.DeleteGroups(ctx, s.group)
	if err == nil {
		err = groups.Error()
	}
	if err != nil {
		return err
	}
	topics, err := s.admin.DeleteTopics(ctx, s.topic, s.unsafe)
	if err == nil {
		err = topics.Error()
	}
	if err != nil {
		return err
	}
	return eventually(ctx, func() error {
		left, err := s.admin.ListTopics(ctx)
		if err == nil && (left.Has(s.topic) || left.Has(s.unsafe)) {
			err = errors.New("a topic is still listed")
		}
		return err
	})
}

func idOf(record *kgo.Record) string {
	for _, header := range record.Headers {
		if header.Key == "id" {
			return string(header.Value)
		}
	}
	return "no id"
}

// eventually tries again for ten seconds, as brokers may learn of a change a little later than it is acknowledged.
func eventually(ctx context.Context, check func() error) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
	}
}
