// What a program that uses sarama does with a broker, step by step: run BOOTSTRAP PREFIX.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"
)

const (
	partitions    = 3
	recordsACodec = 60
	batch         = 5
)

var codecs = []sarama.CompressionCodec{
	sarama.CompressionNone, sarama.CompressionGZIP, sarama.CompressionSnappy, sarama.CompressionLZ4, sarama.CompressionZSTD,
}

// scenario is what the steps share: each fills in what later ones need.
type scenario struct {
	brokers  []string
	topic    string
	unsafe   string // the topic for records that are not acknowledged by all replicas
	group    string
	failover string
	client   sarama.Client
	admin    sarama.ClusterAdmin
	sent     []string // the ids of all acknowledged records
	start    time.Time
	read     [partitions][]*sarama.ConsumerMessage
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
		brokers:  strings.Split(os.Args[1], ","),
		topic:    os.Args[2] + "-records",
		unsafe:   os.Args[2] + "-unsafe",
		group:    os.Args[2] + "-group",
		failover: os.Getenv("FAILOVER_FILE"),
		start:    time.Now().Add(-time.Hour).Truncate(time.Millisecond),
	}
	if err := s.connect(); err != nil {
		fmt.Println("FAILED connect:", err)
		os.Exit(1)
	}
	time.AfterFunc(58*time.Second, func() {
		fmt.Println("FAILED in time: a step is still under way")
		os.Exit(1)
	})
	failed := false
	for _, step := range []struct {
		name string
		run  func() error
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
		{"delete records", s.deleteRecords},
		{"add partitions", s.addPartitions},
		{"delete group and topics", s.delete},
	} {
		if err := step.run(); err != nil {
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

// settings are those that all the clients share. Errors come back from a member's Consume, and are no concern in between.
func settings() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	config.Net.DialTimeout = 2 * time.Second
	config.Metadata.Retry.Max = 40
	config.Producer.Return.Successes = true
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Retry.Max = 100
	config.Producer.Retry.Backoff = 200 * time.Millisecond
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Group.Session.Timeout = 6 * time.Second
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return config
}

func (s *scenario) connect() (err error) {
	if s.client, err = sarama.NewClient(s.brokers, settings()); err == nil {
		s.admin, err = sarama.NewClusterAdminFromClient(s.client)
	}
	return err
}

func (s *scenario) create() error {
	replicas := int64(1)
	if text := os.Getenv("REPLICAS"); text != "" {
		var err error
		if replicas, err = strconv.ParseInt(text, 10, 16); err != nil {
			return err
		}
	}
	for _, topic := range []string{s.topic, s.unsafe} {
		detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: int16(replicas)}
		if err := s.admin.CreateTopic(topic, detail, false); err != nil {
			return err
		}
	}
	return nil
}

// produce sends the records of all codecs idempotently. All must be acknowledged.
func (s *scenario) produce() error {
	for _, codec := range codecs {
		config := settings()
		config.Producer.Idempotent = true
		config.Net.MaxOpenRequests = 1 // as sarama demands of an idempotent producer
		config.Producer.Compression = codec
		producer, err := sarama.NewSyncProducer(s.brokers, config)
		if err != nil {
			return err
		}
		for first := 0; first < recordsACodec; first += batch {
			if s.failover != "" {
				if codec == sarama.CompressionGZIP && first == 0 {
					if err := os.WriteFile(s.failover, nil, 0o600); err != nil {
						return err
					}
				}
				time.Sleep(100 * time.Millisecond)
			}
			var messages []*sarama.ProducerMessage
			for n := first; n < first+batch; n++ {
				id := fmt.Sprintf("%s-%03d", codec, n)
				message := &sarama.ProducerMessage{
					Topic:     s.topic,
					Value:     sarama.StringEncoder("value of " + id),
					Headers:   []sarama.RecordHeader{{Key: []byte("id"), Value: []byte(id)}, {Key: []byte("empty")}},
					Timestamp: s.start.Add(time.Duration(len(s.sent)) * time.Second),
				}
				if n%3 != 0 {
					message.Key = sarama.StringEncoder(fmt.Sprintf("key-%d", n%5))
				}
				if n%10 == 9 {
					message.Value = nil
				}
				messages = append(messages, message)
				s.sent = append(s.sent, id)
			}
			if err := producer.SendMessages(messages); err != nil {
				var all sarama.ProducerErrors
				if errors.As(err, &all) {
					err = all[0]
				}
				return errors.Join(fmt.Errorf("%s: %w", codec, err), producer.Close())
			}
		}
		if err := producer.Close(); err != nil {
			return err
		}
	}
	return nil
}

// readFrom reads some records of a partition that begin at an offset.
func (s *scenario) readFrom(partition int32, offset int64, count int64) ([]*sarama.ConsumerMessage, error) {
	consumer, err := sarama.NewConsumerFromClient(s.client)
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	from, err := consumer.ConsumePartition(s.topic, partition, offset)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	var records []*sarama.ConsumerMessage
	for late := time.After(10 * time.Second); int64(len(records)) < count; {
		select {
		case record := <-from.Messages():
			records = append(records, record)
		case <-late:
			return nil, fmt.Errorf("partition %d has %d records instead of %d", partition, len(records), count)
		}
	}
	return records, nil
}

// readAll reads each partition from its start to its end: every record once, those of a key in order, each as it was sent.
func (s *scenario) readAll() error {
	place := make(map[string]int)
	for at, id := range s.sent {
		place[id] = at
	}
	seen := make(map[string]bool)
	for partition := range int32(partitions) {
		end, err := s.client.GetOffset(s.topic, partition, sarama.OffsetNewest)
		if err != nil {
			return err
		}
		if s.read[partition], err = s.readFrom(partition, 0, end); err != nil {
			return err
		}
		lastOfKey := make(map[string]int)
		for _, record := range s.read[partition] {
			id := idOf(record)
			if seen[id] {
				return fmt.Errorf("%s was read twice", id)
			}
			seen[id] = true
			if want := s.start.Add(time.Duration(place[id]) * time.Second); !record.Timestamp.Equal(want) {
				return fmt.Errorf("%s has the timestamp %v, not %v", id, record.Timestamp, want)
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

func (s *scenario) produceUnsafe() error {
	for _, acks := range []sarama.RequiredAcks{sarama.WaitForLocal, sarama.NoResponse} {
		config := settings()
		config.Producer.RequiredAcks = acks
		producer, err := sarama.NewSyncProducer(s.brokers, config)
		if err != nil {
			return err
		}
		for n := range 10 {
			message := &sarama.ProducerMessage{Topic: s.unsafe, Value: sarama.StringEncoder(strconv.Itoa(n))}
			if _, _, err := producer.SendMessage(message); err != nil {
				return err
			}
		}
		if err := producer.Close(); err != nil {
			return err
		}
	}
	return eventually(func() error {
		total := int64(0)
		for partition := range int32(partitions) {
			end, err := s.client.GetOffset(s.unsafe, partition, sarama.OffsetNewest)
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

// reader is a member of the group. Each time that the partitions are shared out anew it gets another session.
type reader struct {
	topic   string
	each    func(*sarama.ConsumerMessage)
	mutex   sync.Mutex
	session sarama.ConsumerGroupSession
	seen    map[string]bool
	next    map[int32]int64
}

func newReader(topic string) *reader {
	return &reader{topic: topic, each: func(*sarama.ConsumerMessage) {}, seen: make(map[string]bool), next: make(map[int32]int64)}
}

func (r *reader) Setup(session sarama.ConsumerGroupSession) error {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.session = session
	return nil
}

func (r *reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (r *reader) ConsumeClaim(_ sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for record := range claim.Messages() {
		r.mutex.Lock()
		r.seen[idOf(record)] = true
		r.next[record.Partition] = max(r.next[record.Partition], record.Offset+1)
		r.mutex.Unlock()
		r.each(record)
	}
	return nil
}

// run consumes until the check says that it is done, and commits if it was.
func (r *reader) run(brokers []string, group string, limit time.Duration, done func(owned int) (bool, error)) error {
	member, err := sarama.NewConsumerGroup(brokers, group, settings())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	ended := make(chan struct{})
	go func() {
		for ctx.Err() == nil {
			if err := member.Consume(ctx, []string{r.topic}, r); err != nil {
				time.Sleep(200 * time.Millisecond)
			}
		}
		close(ended)
	}()
	check := func() (bool, error) {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		owned := 0
		if r.session != nil && r.session.Context().Err() == nil {
			owned = len(r.session.Claims()[r.topic])
		}
		finished, err := done(owned)
		if finished && err == nil && r.session != nil {
			for partition, next := range r.next {
				r.session.MarkOffset(r.topic, partition, next, "")
			}
			r.session.Commit()
		}
		return finished, err
	}
	finished := false
	for !finished && err == nil {
		time.Sleep(50 * time.Millisecond)
		if finished, err = check(); !finished && ctx.Err() != nil {
			err = fmt.Errorf("%d records seen: %w", len(r.seen), ctx.Err())
		}
	}
	cancel()
	<-ended
	return errors.Join(err, member.Close())
}

// member is the second member of the group, in a process of its own: it says "record" for each that it reads until it is killed.
func member(bootstrap, topic, group string) {
	r := newReader(topic)
	r.each = func(*sarama.ConsumerMessage) { fmt.Println("record") }
	err := r.run(strings.Split(bootstrap, ","), group, 50*time.Second, func(int) (bool, error) { return false, nil })
	fmt.Println(err)
}

// consume kills the second member after it has read something: the first gets its partitions and reads all that was not committed.
func (s *scenario) consume() error {
	other := exec.Command(os.Args[0], "member", strings.Join(s.brokers, ","), s.topic, s.group)
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
	r := newReader(s.topic)
	shared := false
	err = r.run(s.brokers, s.group, 30*time.Second, func(owned int) (bool, error) {
		if owned > 0 && owned < partitions && !shared {
			shared = true
			return false, other.Process.Kill()
		}
		return owned == partitions && len(r.seen) >= len(s.sent), nil
	})
	if err != nil {
		return err
	}
	if !shared {
		return errors.New("the two members never shared the partitions")
	}
	for _, id := range s.sent {
		if !r.seen[id] {
			return fmt.Errorf("%s was not seen", id)
		}
	}
	return nil
}

// resume writes one more record: a new member sees this one and none that was committed.
func (s *scenario) resume() error {
	producer, err := sarama.NewSyncProducerFromClient(s.client)
	if err != nil {
		return err
	}
	defer producer.Close()
	id := "resume-000"
	message := &sarama.ProducerMessage{
		Topic: s.topic, Value: sarama.StringEncoder("more"), Headers: []sarama.RecordHeader{{Key: []byte("id"), Value: []byte(id)}},
	}
	if _, _, err := producer.SendMessage(message); err != nil {
		return err
	}
	r := newReader(s.topic)
	return r.run(s.brokers, s.group, 15*time.Second, func(int) (bool, error) {
		if len(r.seen) > 1 || len(r.seen) == 1 && !r.seen[id] {
			return true, fmt.Errorf("it read %v", r.seen)
		}
		return len(r.seen) == 1, nil
	})
}

func (s *scenario) seek() error {
	middle := s.start.Add(time.Duration(len(s.sent)/2) * time.Second)
	for partition, records := range s.read {
		found, err := s.client.GetOffset(s.topic, int32(partition), middle.UnixMilli())
		if err != nil {
			return err
		}
		for _, record := range records {
			if record.Timestamp.Before(middle) {
				continue
			}
			if found != record.Offset {
				return fmt.Errorf("partition %d: offset %d instead of %d", partition, found, record.Offset)
			}
			got, err := s.readFrom(int32(partition), found, 1)
			if err != nil {
				return err
			}
			if got[0].Timestamp.Before(middle) {
				return fmt.Errorf("partition %d begins at %v, before %v", partition, got[0].Timestamp, middle)
			}
			break
		}
	}
	return nil
}

func (s *scenario) topics() error {
	all, err := s.admin.ListTopics()
	if err != nil {
		return err
	}
	if all[s.topic].NumPartitions != partitions {
		return fmt.Errorf("%s is not listed with %d partitions: %+v", s.topic, partitions, all[s.topic])
	}
	described, err := s.admin.DescribeTopics([]string{s.topic})
	if err != nil {
		return err
	}
	for _, partition := range described[0].Partitions {
		if partition.Leader < 0 || len(partition.Isr) == 0 {
			return fmt.Errorf("partition %d: %+v", partition.ID, partition)
		}
	}
	if brokers, _, err := s.admin.DescribeCluster(); err != nil || len(brokers) == 0 {
		return fmt.Errorf("%d brokers are described: %w", len(brokers), err)
	}
	return nil
}

func (s *scenario) groups() error {
	all, err := s.admin.ListConsumerGroups()
	if err != nil {
		return err
	}
	if _, ok := all[s.group]; !ok {
		return fmt.Errorf("%s is not listed", s.group)
	}
	if err := eventually(func() error {
		described, err := s.admin.DescribeConsumerGroups([]string{s.group})
		if err == nil && described[0].State != "Empty" {
			err = fmt.Errorf("the state is %s", described[0].State)
		}
		return err
	}); err != nil {
		return err
	}
	committed, err := s.admin.ListConsumerGroupOffsets(s.group, map[string][]int32{s.topic: {0, 1, 2}})
	if err != nil {
		return err
	}
	for partition := range int32(partitions) {
		end, err := s.client.GetOffset(s.topic, partition, sarama.OffsetNewest)
		if err != nil {
			return err
		}
		if block := committed.GetBlock(s.topic, partition); block == nil || block.Offset != end {
			return fmt.Errorf("partition %d: committed %+v, end %d", partition, block, end)
		}
	}
	return nil
}

func (s *scenario) config() error {
	value := "86400000"
	entries := map[string]sarama.IncrementalAlterConfigsEntry{
		"retention.ms": {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &value},
	}
	if err := s.admin.IncrementalAlterConfig(sarama.TopicResource, s.topic, entries, false); err != nil {
		return err
	}
	return eventually(func() error {
		described, err := s.admin.DescribeConfig(sarama.ConfigResource{
			Type: sarama.TopicResource, Name: s.topic, ConfigNames: []string{"retention.ms"},
		})
		if err != nil {
			return err
		}
		if len(described) != 1 || described[0].Value != value {
			return fmt.Errorf("it is %+v", described)
		}
		return nil
	})
}

func (s *scenario) deleteRecords() error {
	if err := s.admin.DeleteRecords(s.topic, map[int32]int64{0: 5}); err != nil {
		return err
	}
	start, err := s.client.GetOffset(s.topic, 0, sarama.OffsetOldest)
	if err == nil && start != 5 {
		err = fmt.Errorf("the partition begins at %d instead of 5", start)
	}
	return err
}

func (s *scenario) addPartitions() error {
	if err := s.admin.CreatePartitions(s.topic, partitions+1, nil, false); err != nil {
		return err
	}
	return eventually(func() error {
		described, err := s.admin.DescribeTopics([]string{s.topic})
		if err == nil && len(described[0].Partitions) != partitions+1 {
			err = fmt.Errorf("%d partitions", len(described[0].Partitions))
		}
		return err
	})
}

func (s *scenario) delete() error {
	if err := s.admin.DeleteConsumerGroup(s.group); err != nil {
		return err
	}
	for _, topic := range []string{s.topic, s.unsafe} {
		if err := s.admin.DeleteTopic(topic); err != nil {
			return err
		}
	}
	return eventually(func() error {
		left, err := s.admin.ListTopics()
		if err != nil {
			return err
		}
		for _, topic := range []string{s.topic, s.unsafe} {
			if _, ok := left[topic]; ok {
				return fmt.Errorf("%s is still listed", topic)
			}
		}
		return nil
	})
}

func idOf(record *sarama.ConsumerMessage) string {
	for _, header := range record.Headers {
		if string(header.Key) == "id" {
			return string(header.Value)
		}
	}
	return "no id"
}

// eventually tries again for ten seconds, as brokers may learn of a change a little later than it is acknowledged.
func eventually(check func() error) error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
