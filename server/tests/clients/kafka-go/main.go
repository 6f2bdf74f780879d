// What a program that uses kafka-go does with a broker, step by step: run BOOTSTRAP PREFIX.
//
// Not here, as kafka-go cannot do it: idempotence, and deleting records.
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

	"github.com/segmentio/kafka-go"
)

const (
	partitions    = 3
	recordsACodec = 60
	batch         = 5
)

var codecs = []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd}

// scenario is what the steps share: each fills in what later ones need.
type scenario struct {
	brokers  []string
	topic    string
	unsafe   string // the topic for records that are not acknowledged by all replicas
	group    string
	failover string
	client   *kafka.Client
	sent     []string // the ids of all acknowledged records
	start    time.Time
	read     [partitions][]kafka.Message
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
	brokers := strings.Split(os.Args[1], ",")
	s := &scenario{
		brokers:  brokers,
		topic:    os.Args[2] + "-records",
		unsafe:   os.Args[2] + "-unsafe",
		group:    os.Args[2] + "-group",
		failover: os.Getenv("FAILOVER_FILE"),
		client: &kafka.Client{
			Addr:      kafka.TCP(brokers...),
			Timeout:   10 * time.Second,
			Transport: &kafka.Transport{MetadataTTL: time.Second, DialTimeout: 2 * time.Second},
		},
		start: time.Now().Add(-time.Hour).Truncate(time.Millisecond),
	}
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
		{"list and describe groups, offsets", s.groups},
		{"alter a topic's configuration", s.config},
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
	replicas := 1
	if text := os.Getenv("REPLICAS"); text != "" {
		var err error
		if replicas, err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	made, err := s.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: s.topic, NumPartitions: partitions, ReplicationFactor: replicas},
		{Topic: s.unsafe, NumPartitions: partitions, ReplicationFactor: replicas},
	}})
	if err != nil {
		return err
	}
	return errors.Join(slices.Collect(maps.Values(made.Errors))...)
}

func (s *scenario) writer(topic string, acks kafka.RequiredAcks, compression kafka.Compression) *kafka.Writer {
	return &kafka.Writer{
		Addr: s.client.Addr, Topic: topic, Balancer: &kafka.Hash{}, Transport: s.client.Transport,
		RequiredAcks: acks, Compression: compression,
		BatchTimeout: 5 * time.Millisecond, MaxAttempts: 100, WriteBackoffMax: 500 * time.Millisecond,
	}
}

// produce sends the records of all codecs. All must be acknowledged.
func (s *scenario) produce(ctx context.Context) error {
	for at, codec := range codecs {
		name := "none"
		if codec != 0 {
			name = codec.String()
		}
		writer := s.writer(s.topic, kafka.RequireAll, codec)
		for first := 0; first < recordsACodec; first += batch {
			if s.failover != "" {
				if at == 1 && first == 0 {
					if err := os.WriteFile(s.failover, nil, 0o600); err != nil {
						return err
					}
				}
				time.Sleep(100 * time.Millisecond)
			}
			var messages []kafka.Message
			for n := first; n < first+batch; n++ {
				id := fmt.Sprintf("%s-%03d", name, n)
				message := kafka.Message{
					Value:   []byte("value of " + id),
					Headers: []kafka.Header{{Key: "id", Value: []byte(id)}, {Key: "empty"}},
					Time:    s.start.Add(time.Duration(len(s.sent)) * time.Second),
				}
				if n%3 != 0 {
					message.Key = fmt.Appendf(nil, "key-%d", n%5)
				}
				if n%10 == 9 {
					message.Value = nil
				}
				messages = append(messages, message)
				s.sent = append(s.sent, id)
			}
			if err := writer.WriteMessages(ctx, messages...); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", name, err), writer.Close())
			}
		}
		if err := writer.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (s *scenario) offset(ctx context.Context, topic string, partition int, timestamp int64) (int64, error) {
	found, err := s.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: {{Partition: partition, Timestamp: timestamp}}},
	})
	if err != nil {
		return 0, err
	}
	offsets := found.Topics[topic]
	if len(offsets) != 1 || offsets[0].Error != nil {
		return 0, fmt.Errorf("partition %d: %+v", partition, offsets)
	}
	switch timestamp {
	case kafka.FirstOffset:
		return offsets[0].FirstOffset, nil
	case kafka.LastOffset:
		return offsets[0].LastOffset, nil
	}
	for offset := range offsets[0].Offsets {
		return offset, nil
	}
	return 0, fmt.Errorf("partition %d: no offset", partition)
}

func (s *scenario) reader(partition int) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{Brokers: s.brokers, Topic: s.topic, Partition: partition, MaxWait: 500 * time.Millisecond})
}

// readAll reads each partition from its start to its end: every record (more than once only if a broker was killed, as this client is not
// idempotent), those of a key in order, each as it was sent.
func (s *scenario) readAll(ctx context.Context) error {
	place := make(map[string]int)
	for at, id := range s.sent {
		place[id] = at
	}
	seen := make(map[string]bool)
	for partition := range partitions {
		end, err := s.offset(ctx, s.topic, partition, kafka.LastOffset)
		if err != nil {
			return err
		}
		reader := s.reader(partition)
		defer reader.Close()
		lastOfKey := make(map[string]int)
		for int64(len(s.read[partition])) < end {
			record, err := reader.ReadMessage(ctx)
			if err != nil {
				return err
			}
			s.read[partition] = append(s.read[partition], record)
			id := idOf(record)
			if seen[id] {
				if s.failover == "" {
					return fmt.Errorf("%s was read twice", id)
				}
				continue
			}
			seen[id] = true
			if want := s.start.Add(time.Duration(place[id]) * time.Second); !record.Time.Equal(want) {
				return fmt.Errorf("%s has the timestamp %v, not %v", id, record.Time, want)
			}
			if tombstone := strings.HasSuffix(id, "9"); tombstone != (record.Value == nil) {
				return fmt.Errorf("%s has the value %q", id, record.Value)
			}
			if record.Key != nil {
				if last, ok := lastOfKey[string(record.Key)]; ok && last >= place[id] {
					return fmt.Errorf("%s of %s came after %s", id, record.Key, s.sent[last])
				}
				lastOfKey[string(record.Key)] = place[id]
			}
		}
	}
	if len(seen) != len(s.sent) {
		return fmt.Errorf("%d records instead of %d", len(seen), len(s.sent))
	}
	return nil
}

func (s *scenario) produceUnsafe(ctx context.Context) error {
	for _, acks := range []kafka.RequiredAcks{kafka.RequireOne, kafka.RequireNone} {
		writer := s.writer(s.unsafe, acks, 0)
		for n := range 10 {
			if err := writer.WriteMessages(ctx, kafka.Message{Value: fmt.Append(nil, n)}); err != nil {
				return err
			}
		}
		if err := writer.Close(); err != nil {
			return err
		}
	}
	return eventually(ctx, func() error {
		total := int64(0)
		for partition := range partitions {
			end, err := s.offset(ctx, s.unsafe, partition, kafka.LastOffset)
			if err != nil {
				return err
			}
			total += end
		}
		// Nobody knows whether a record with acks 0 arrives at a broker that is not the leader any more.
		if total == 20 || s.failover != "" && total >= 10 {
			return nil
		}
		return fmt.Errorf("%d records instead of 20", total)
	})
}

// groupReader is a member of the group that loses its place after 6 s of silence, and commits only when asked to.
func groupReader(brokers []string, topic, group string) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers: brokers, GroupID: group, GroupTopics: []string{topic}, StartOffset: kafka.FirstOffset,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond, RebalanceTimeout: 6 * time.Second,
		JoinGroupBackoff: 500 * time.Millisecond, MaxWait: 500 * time.Millisecond,
	})
}

// member is the second member of the group, in a process of its own: it says "record" for each that it reads until it is killed.
func member(bootstrap, topic, group string) {
	reader := groupReader(strings.Split(bootstrap, ","), topic, group)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if _, err := reader.FetchMessage(ctx); err == nil {
			fmt.Println("record")
		}
	}
}

// owned says how many partitions each member of the group has, as the coordinator describes it.
func (s *scenario) owned(ctx context.Context) (owned []int, state string, err error) {
	described, err := s.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{s.group}})
	if err != nil {
		return nil, "", err
	}
	group := described.Groups[0]
	for _, member := range group.Members {
		has := 0
		for _, topic := range member.MemberAssignments.Topics {
			has += len(topic.Partitions)
		}
		owned = append(owned, has)
	}
	return owned, group.GroupState, group.Error
}

// consume kills the second member after it has read something: the first gets its partitions and reads all that was not committed.
func (s *scenario) consume(ctx context.Context) error {
	other := exec.CommandContext(ctx, os.Args[0], "member", strings.Join(s.brokers, ","), s.topic, s.group)
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
	reader := groupReader(s.brokers, s.topic, s.group)
	defer reader.Close()
	seen := make(map[string]bool)
	last := make(map[int]kafka.Message)
	shared, alone := false, false
	for !alone || len(seen) < len(s.sent) {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		record, err := reader.FetchMessage(short)
		cancel()
		if err == nil {
			seen[idOf(record)] = true
			if record.Offset >= last[record.Partition].Offset {
				last[record.Partition] = record
			}
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d records: %w", len(seen), len(s.sent), ctx.Err())
		}
		owned, _, err := s.owned(ctx)
		if err != nil {
			continue // its coordinator may be changing
		}
		if !shared && len(owned) == 2 && owned[0] > 0 && owned[1] > 0 {
			shared = true
			other.Process.Kill()
		}
		alone = shared && len(owned) == 1 && owned[0] == partitions
	}
	for _, id := range s.sent {
		if !seen[id] {
			return fmt.Errorf("%s was not seen", id)
		}
	}
	return reader.CommitMessages(ctx, slices.Collect(maps.Values(last))...)
}

// resume writes one more record: a new member sees this one and none that was committed.
func (s *scenario) resume(ctx context.Context) error {
	writer := s.writer(s.topic, kafka.RequireAll, 0)
	defer writer.Close()
	id := "resume-000"
	if err := writer.WriteMessages(ctx, kafka.Message{Value: []byte("more"), Headers: []kafka.Header{{Key: "id", Value: []byte(id)}}}); err != nil {
		return err
	}
	reader := groupReader(s.brokers, s.topic, s.group)
	defer reader.Close()
	record, err := reader.FetchMessage(ctx)
	if err != nil {
		return err
	}
	if idOf(record) != id {
		return fmt.Errorf("%s was read again", idOf(record))
	}
	return reader.CommitMessages(ctx, record)
}

func (s *scenario) seek(ctx context.Context) error {
	middle := s.start.Add(time.Duration(len(s.sent)/2) * time.Second)
	for partition, records := range s.read {
		at := slices.IndexFunc(records, func(record kafka.Message) bool { return !record.Time.Before(middle) })
		if at < 0 {
			continue
		}
		found, err := s.offset(ctx, s.topic, partition, middle.UnixMilli())
		if err != nil {
			return err
		}
		if found != records[at].Offset {
			return fmt.Errorf("partition %d: offset %d instead of %d", partition, found, records[at].Offset)
		}
		reader := s.reader(partition)
		defer reader.Close()
		if err := reader.SetOffsetAt(ctx, middle); err != nil {
			return err
		}
		record, err := reader.ReadMessage(ctx)
		if err != nil {
			return err
		}
		if record.Offset != found {
			return fmt.Errorf("partition %d begins at %d instead of %d", partition, record.Offset, found)
		}
	}
	return nil
}

// described is a topic as the brokers describe it, out of all of them.
func (s *scenario) described(ctx context.Context, name string) (kafka.Topic, error) {
	all, err := s.client.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return kafka.Topic{}, err
	}
	for _, topic := range all.Topics {
		if topic.Name == name {
			return topic, topic.Error
		}
	}
	return kafka.Topic{}, fmt.Errorf("%s is not listed", name)
}

func (s *scenario) topics(ctx context.Context) error {
	topic, err := s.described(ctx, s.topic)
	if err != nil {
		return err
	}
	if len(topic.Partitions) != partitions {
		return fmt.Errorf("%d partitions", len(topic.Partitions))
	}
	for _, partition := range topic.Partitions {
		if partition.Leader.Host == "" || len(partition.Isr) == 0 {
			return fmt.Errorf("partition %d: %+v", partition.ID, partition)
		}
	}
	return nil
}

func (s *scenario) groups(ctx context.Context) error {
	all, err := s.client.ListGroups(ctx, &kafka.ListGroupsRequest{})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all.Groups, func(group kafka.ListGroupsResponseGroup) bool { return group.GroupID == s.group }) {
		return fmt.Errorf("%s is not listed", s.group)
	}
	if err := eventually(ctx, func() error {
		_, state, err := s.owned(ctx)
		if err == nil && state != "Empty" {
			err = fmt.Errorf("the state is %s", state)
		}
		return err
	}); err != nil {
		return err
	}
	committed, err := s.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: s.group, Topics: map[string][]int{s.topic: {0, 1, 2}}})
	if err != nil {
		return err
	}
	for _, partition := range committed.Topics[s.topic] {
		end, err := s.offset(ctx, s.topic, partition.Partition, kafka.LastOffset)
		if err != nil {
			return err
		}
		if partition.Error != nil || partition.CommittedOffset != end {
			return fmt.Errorf("committed %+v, end %d", partition, end)
		}
	}
	return nil
}

func (s *scenario) config(ctx context.Context) error {
	value := "86400000"
	altered, err := s.client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: s.topic,
			Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: value, ConfigOperation: kafka.ConfigOperationSet}},
		}},
	})
	if err == nil {
		err = altered.Resources[0].Error
	}
	if err != nil {
		return err
	}
	return eventually(ctx, func() error {
		described, err := s.client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{
				ResourceType: kafka.ResourceTypeTopic, ResourceName: s.topic, ConfigNames: []string{"retention.ms"},
			}},
		})
		if err != nil {
			return err
		}
		entries := described.Resources[0].ConfigEntries
		if len(entries) != 1 || entries[0].ConfigValue != value {
			return fmt.Errorf("it is %+v", entries)
		}
		return nil
	})
}

func (s *scenario) addPartitions(ctx context.Context) error {
	added, err := s.client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
		Topics: []kafka.TopicPartitionsConfig{{Name: s.topic, Count: partitions + 1}},
	})
	if err == nil {
		err = errors.Join(slices.Collect(maps.Values(added.Errors))...)
	}
	if err != nil {
		return err
	}
	return eventually(ctx, func() error {
		topic, err := s.described(ctx, s.topic)
		if err == nil && len(topic.Partitions) != partitions+1 {
			err = fmt.Errorf("%d partitions", len(topic.Partitions))
		}
		return err
	})
}

func (s *scenario) delete(ctx context.Context) error {
	groups, err := s.client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{s.group}})
	if err == nil {
		err = groups.Errors[s.group]
	}
	if err != nil {
		return err
	}
	topics, err := s.client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{s.topic, s.unsafe}})
	if err == nil {
		err = errors.Join(slices.Collect(maps.Values(topics.Errors))...)
	}
	if err != nil {
		return err
	}
	return eventually(ctx, func() error {
		for _, name := range []string{s.topic, s.unsafe} {
			if _, err := s.described(ctx, name); err == nil {
				return fmt.Errorf("%s is still listed", name)
			}
		}
		return nil
	})
}

func idOf(record kafka.Message) string {
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
