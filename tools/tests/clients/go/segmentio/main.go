// segmentio/kafka-go. Groups through its ConsumerGroup, on which its Reader stands, because the Reader does not tell what it holds.
package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"time"

	"floodmark/adapters/adapter"

	"github.com/segmentio/kafka-go"
)

const (
	wait     = 30 * time.Second
	maxBytes = 20_000_000
)

type request = adapter.Request
type answer = adapter.Answer

var bootstrap string

var codecs = map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

func hello(request) (answer, error) {
	version := "?"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/segmentio/kafka-go" {
				version = dep.Version
			}
		}
	}
	return answer{"version": version, "codecs": adapter.Codecs, "lacks": []string{"empty", "empty header"}}, nil
}

// Which request's record a message is, and the partition that it asks for.
type wanted struct {
	number    int
	partition *int32
}

func produce(r request) (answer, error) {
	if r.Idempotent {
		return nil, adapter.Unsupported("kafka-go has no idempotent producer")
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	hash := &kafka.Hash{}
	var mutex sync.Mutex
	offsets := make([][2]int64, len(r.Records))
	for n := range offsets {
		offsets[n] = [2]int64{-1, -1}
	}
	writer := &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: r.Topic, Transport: transport, Compression: codecs[r.Codec],
		RequiredAcks: map[string]kafka.RequiredAcks{"0": kafka.RequireNone, "1": kafka.RequireOne, "all": kafka.RequireAll}[r.Acks],
		BatchTimeout: 5 * time.Millisecond, BatchBytes: maxBytes, MaxAttempts: 3,
		Balancer: kafka.BalancerFunc(func(message kafka.Message, partitions ...int) int {
			if asked := message.WriterData.(wanted).partition; asked != nil {
				return int(*asked)
			}
			return hash.Balance(message, partitions...)
		}),
		Completion: func(messages []kafka.Message, err error) {
			mutex.Lock()
			defer mutex.Unlock()
			for _, message := range messages {
				offsets[message.WriterData.(wanted).number] = [2]int64{int64(message.Partition), message.Offset}
			}
		},
	}
	messages := make([]kafka.Message, len(r.Records))
	for n, record := range r.Records {
		message := kafka.Message{Key: record.Key, Value: record.Value, WriterData: wanted{n, record.Partition}}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: header.Name, Value: header.Value})
		}
		if record.Timestamp != nil {
			message.Time = time.UnixMilli(*record.Timestamp)
		}
		messages[n] = message
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	err := writer.WriteMessages(ctx, messages...)
	err = errors.Join(err, writer.Close())
	mutex.Lock()
	defer mutex.Unlock()
	return answer{"offsets": offsets}, err
}

// A consumer of either kind, seen from poll.
type consumer struct {
	messages chan kafka.Message
	end      func() error

	mutex      sync.Mutex
	generation *kafka.Generation
	held       []int
	revoked    []int
	// Next offset to commit, by partition.
	next map[int]int64
}

var current *consumer

func reader(topic string, partition int) *kafka.Reader {
	return kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{bootstrap}, Topic: topic, Partition: partition, MaxBytes: maxBytes, MaxWait: 500 * time.Millisecond,
	})
}

// Hands on what a reader gives until the context or the reader ends.
func (c *consumer) read(ctx context.Context, from *kafka.Reader) {
	defer from.Close()
	for {
		message, err := from.ReadMessage(ctx)
		if err != nil {
			return
		}
		select {
		case c.messages <- message:
		case <-ctx.Done():
			return
		}
	}
}

func assign(r request) (answer, error) {
	shut(request{})
	ctx, cancel := context.WithCancel(context.Background())
	made := &consumer{messages: make(chan kafka.Message), end: func() error { cancel(); return nil }, next: map[int]int64{}}
	current = made
	for _, partition := range r.PartitionList() {
		from := reader(r.Topic, int(partition))
		switch at := adapter.Place(r.Start); at {
		case -2:
			from.SetOffset(kafka.FirstOffset)
		case -1:
			from.SetOffset(kafka.LastOffset)
		default:
			if err := from.SetOffsetAt(ctx, time.UnixMilli(at)); err != nil {
				return nil, err
			}
		}
		made.held = append(made.held, int(partition))
		go made.read(ctx, from)
	}
	return nil, nil
}

func subscribe(r request) (answer, error) {
	if r.Strategy != "eager" {
		return nil, adapter.Unsupported("kafka-go has no cooperative rebalancing")
	}
	if r.Instance != nil {
		return nil, adapter.Unsupported("kafka-go has no static members")
	}
	shut(request{})
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: r.Group, Brokers: []string{bootstrap}, Topics: []string{r.Topic}, StartOffset: kafka.FirstOffset,
		GroupBalancers: []kafka.GroupBalancer{kafka.RangeGroupBalancer{}}, JoinGroupBackoff: 200 * time.Millisecond,
		SessionTimeout: time.Duration(r.SessionMs) * time.Millisecond, HeartbeatInterval: time.Duration(r.SessionMs/6) * time.Millisecond,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	member := &consumer{messages: make(chan kafka.Message), next: map[int]int64{}}
	member.end = func() error {
		cancel()
		err := group.Close()
		<-ended
		return err
	}
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if generation, err := group.Next(ctx); err == nil {
				member.start(generation, r.Topic)
			}
		}
	}()
	current = member
	return nil, nil
}

// Begins a generation: what the last one held is gone.
func (c *consumer) start(generation *kafka.Generation, topic string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.generation, c.next, c.held = generation, map[int]int64{}, nil
	for _, assigned := range generation.Assignments[topic] {
		c.held = append(c.held, assigned.ID)
		from := reader(topic, assigned.ID)
		from.SetOffset(assigned.Offset)
		generation.Start(func(ctx context.Context) { c.read(ctx, from) })
	}
	generation.Start(func(ctx context.Context) {
		<-ctx.Done()
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.revoked = append(c.revoked, c.held...)
		c.held, c.generation = nil, nil
	})
}

func poll(r request) (answer, error) {
	records := [][]any{}
	limit := time.After(time.Duration(r.Ms) * time.Millisecond)
	var quiet <-chan time.Time
	for reading := true; reading && len(records) < 5000; {
		select {
		case message := <-current.messages:
			headers := []adapter.Header{}
			for _, header := range message.Headers {
				headers = append(headers, adapter.Header{Name: header.Key, Value: header.Value})
			}
			records = append(records, adapter.Got(
				int32(message.Partition), message.Offset, message.Time.UnixMilli(), message.Key, message.Value, headers))
			current.mutex.Lock()
			current.next[message.Partition] = message.Offset + 1
			current.mutex.Unlock()
			quiet = time.After(20 * time.Millisecond)
		case <-quiet:
			reading = false
		case <-limit:
			reading = false
		}
	}
	current.mutex.Lock()
	defer current.mutex.Unlock()
	assignment := append([]int{}, current.held...)
	sort.Ints(assignment)
	taken := append([]int{}, current.revoked...)
	current.revoked = nil
	return answer{"records": records, "assignment": assignment, "revoked": taken}, nil
}

func commit(r request) (answer, error) {
	current.mutex.Lock()
	generation, next := current.generation, map[int]int64{}
	for partition, offset := range current.next {
		next[partition] = offset
	}
	current.mutex.Unlock()
	if generation == nil {
		return nil, errors.New("no generation to commit in")
	}
	offsets := map[string]map[int]int64{}
	for topic := range generation.Assignments {
		offsets[topic] = next
	}
	return nil, generation.CommitOffsets(offsets)
}

func shut(request) (answer, error) {
	was := current
	current = nil
	if was == nil {
		return nil, nil
	}
	return nil, was.end()
}

func administer(ops adapter.Ops) {
	on := func(name string, do func(context.Context, *kafka.Client, request) (answer, error)) {
		ops[name] = func(r request) (answer, error) {
			ctx, cancel := context.WithTimeout(context.Background(), wait)
			defer cancel()
			// A transport keeps metadata for some seconds; a new one sees what was changed.
			transport := &kafka.Transport{}
			defer transport.CloseIdleConnections()
			return do(ctx, &kafka.Client{Addr: kafka.TCP(bootstrap), Transport: transport}, r)
		}
	}
	on("metadata", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		found, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		if err != nil {
			return nil, err
		}
		topics := [][]any{}
		for _, topic := range found.Topics {
			if strings.HasPrefix(topic.Name, r.Prefix) {
				topics = append(topics, []any{topic.Name, len(topic.Partitions)})
			}
		}
		return answer{"topics": topics}, nil
	})
	on("create_topic", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		topic := kafka.TopicConfig{Topic: r.Topic, NumPartitions: r.PartitionCount(), ReplicationFactor: 1}
		for name, value := range r.Configs {
			topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: value})
		}
		told, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
		if err == nil {
			err = told.Errors[r.Topic]
		}
		return nil, err
	})
	on("delete_topic", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		told, err := client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{r.Topic}})
		if err == nil {
			err = told.Errors[r.Topic]
		}
		return nil, err
	})
	on("describe_cluster", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		found, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{}})
		if err != nil {
			return nil, err
		}
		brokers := [][]any{}
		for _, broker := range found.Brokers {
			brokers = append(brokers, []any{broker.ID, broker.Host, broker.Port})
		}
		return answer{"cluster_id": found.ClusterID, "controller": found.Controller.ID, "brokers": brokers}, nil
	})
	on("describe_topic", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		found, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{r.Topic}})
		if err != nil {
			return nil, err
		}
		partitions := [][]any{}
		for _, p := range found.Topics[0].Partitions {
			partitions = append(partitions, []any{p.ID, p.Leader.ID, len(p.Replicas), len(p.Isr)})
		}
		return answer{"partitions": partitions}, found.Topics[0].Error
	})
	on("describe_configs", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		found, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{
			Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: r.Topic}}})
		if err != nil {
			return nil, err
		}
		configs := map[string]string{}
		for _, config := range found.Resources[0].ConfigEntries {
			configs[config.ConfigName] = config.ConfigValue
		}
		return answer{"configs": configs}, found.Resources[0].Error
	})
	on("alter_configs", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		resource := kafka.IncrementalAlterConfigsRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: r.Topic}
		for name, value := range r.Configs {
			resource.Configs = append(resource.Configs, kafka.IncrementalAlterConfigsRequestConfig{
				Name: name, Value: value, ConfigOperation: kafka.ConfigOperationSet})
		}
		told, err := client.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
			Resources: []kafka.IncrementalAlterConfigsRequestResource{resource}})
		if err == nil {
			err = told.Resources[0].Error
		}
		return nil, err
	})
	on("create_partitions", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		told, err := client.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: r.Topic, Count: int32(r.Count)}}})
		if err == nil {
			err = told.Errors[r.Topic]
		}
		return nil, err
	})
	on("list_offsets", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		asked := []kafka.OffsetRequest{}
		for _, partition := range r.PartitionList() {
			asked = append(asked, kafka.OffsetRequest{Partition: int(partition), Timestamp: adapter.Place(r.At)})
		}
		found, err := client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{r.Topic: asked}})
		if err != nil {
			return nil, err
		}
		offsets := [][2]int64{}
		for _, place := range found.Topics[r.Topic] {
			err = errors.Join(err, place.Error)
			// Where the start or the end was asked for, it has a field of its own.
			offset := max(place.FirstOffset, place.LastOffset)
			for at := range place.Offsets {
				offset = max(offset, at)
			}
			offsets = append(offsets, [2]int64{int64(place.Partition), offset})
		}
		return answer{"offsets": offsets}, err
	})
	on("list_groups", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		found, err := client.ListGroups(ctx, &kafka.ListGroupsRequest{})
		if err != nil {
			return nil, err
		}
		groups := []string{}
		for _, group := range found.Groups {
			groups = append(groups, group.GroupID)
		}
		return answer{"groups": groups}, found.Error
	})
	on("describe_group", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		found, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{r.Group}})
		if err != nil {
			return nil, err
		}
		return answer{"state": found.Groups[0].GroupState, "members": len(found.Groups[0].Members)}, found.Groups[0].Error
	})
	on("group_offsets", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		found, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: r.Group})
		if err != nil {
			return nil, err
		}
		offsets := [][]any{}
		for topic, partitions := range found.Topics {
			for _, place := range partitions {
				offsets = append(offsets, []any{topic, place.Partition, place.CommittedOffset})
			}
		}
		return answer{"offsets": offsets}, found.Error
	})
	on("delete_group", func(ctx context.Context, client *kafka.Client, r request) (answer, error) {
		told, err := client.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{r.Group}})
		if err == nil {
			err = told.Errors[r.Group]
		}
		return nil, err
	})
}

func main() {
	bootstrap = os.Args[1]
	ops := adapter.Ops{
		"hello": hello, "produce": produce, "assign": assign, "subscribe": subscribe, "poll": poll, "commit": commit, "close": shut,
	}
	administer(ops)
	adapter.Serve(ops, func(err error) int {
		var tooLarge kafka.MessageTooLargeError
		if errors.As(err, &tooLarge) {
			return int(kafka.MessageSizeTooLarge)
		}
		var broker kafka.Error
		if errors.As(err, &broker) {
			return int(broker)
		}
		return 0
	})
}
