// sarama.
package main

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"floodmark/adapters/adapter"

	"github.com/IBM/sarama"
)

type request = adapter.Request
type answer = adapter.Answer

var bootstrap []string

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func config() *sarama.Config {
	made := sarama.NewConfig()
	made.Version = sarama.MaxVersion
	made.Consumer.Offsets.Initial = sarama.OffsetOldest
	made.Consumer.Offsets.AutoCommit.Enable = false
	made.Consumer.Fetch.Max = 0
	made.Metadata.AllowAutoTopicCreation = false
	return made
}

func hello(request) (answer, error) {
	version := "?"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/IBM/sarama" {
				version = dep.Version
			}
		}
	}
	return answer{"version": version, "codecs": adapter.Codecs, "lacks": []string{}}, nil
}

func encoder(bytes []byte) sarama.Encoder {
	if bytes == nil {
		return nil
	}
	return sarama.ByteEncoder(bytes)
}

func produce(r request) (answer, error) {
	made := config()
	made.Producer.Return.Successes = true
	made.Producer.MaxMessageBytes = 20_000_000
	made.Producer.Compression = codecs[r.Codec]
	made.Producer.RequiredAcks = map[string]sarama.RequiredAcks{
		"0": sarama.NoResponse, "1": sarama.WaitForLocal, "all": sarama.WaitForAll}[r.Acks]
	if r.Idempotent {
		made.Producer.Idempotent = true
		made.Net.MaxOpenRequests = 1
	}
	messages := make([]*sarama.ProducerMessage, len(r.Records))
	made.Producer.Partitioner = sarama.NewManualPartitioner
	for n, record := range r.Records {
		message := &sarama.ProducerMessage{Topic: r.Topic, Key: encoder(record.Key), Value: encoder(record.Value), Metadata: n}
		for _, header := range record.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(header.Name), Value: header.Value})
		}
		if record.Partition == nil {
			made.Producer.Partitioner = sarama.NewHashPartitioner
		} else {
			message.Partition = *record.Partition
		}
		if record.Timestamp != nil {
			message.Timestamp = time.UnixMilli(*record.Timestamp)
		}
		messages[n] = message
	}
	producer, err := sarama.NewSyncProducer(bootstrap, made)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	if err := producer.SendMessages(messages); err != nil {
		return nil, err
	}
	offsets := make([][2]int64, len(messages))
	for n, message := range messages {
		offsets[n] = [2]int64{int64(message.Partition), message.Offset}
	}
	return answer{"offsets": offsets}, nil
}

func transaction(r request) (answer, error) {
	made := config()
	made.Producer.Return.Successes = true
	made.Producer.RequiredAcks = sarama.WaitForAll
	made.Producer.Idempotent = true
	made.Producer.Transaction.ID = r.TransactionalID
	made.Net.MaxOpenRequests = 1
	producer, err := sarama.NewSyncProducer(bootstrap, made)
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	if err := producer.BeginTxn(); err != nil {
		return nil, err
	}
	message := &sarama.ProducerMessage{Topic: r.Topic, Value: sarama.StringEncoder("in a transaction")}
	if _, _, err := producer.SendMessage(message); err != nil {
		return nil, err
	}
	return nil, producer.CommitTxn()
}

// A consumer of either kind, seen from poll.
type consumer struct {
	messages chan *sarama.ConsumerMessage
	end      func() error

	mutex   sync.Mutex
	plain   []int32
	session sarama.ConsumerGroupSession
	topic   string
	revoked []int32
	failed  error
}

var current *consumer

func assign(r request) (answer, error) {
	shut(request{})
	client, err := sarama.NewClient(bootstrap, config())
	if err != nil {
		return nil, err
	}
	source, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	made := &consumer{messages: make(chan *sarama.ConsumerMessage), plain: r.PartitionList(), topic: r.Topic}
	made.end = func() error {
		close(done)
		return errors.Join(source.Close(), client.Close())
	}
	for _, partition := range made.plain {
		at := adapter.Place(r.Start)
		if at >= 0 {
			if at, err = client.GetOffset(r.Topic, partition, at); err != nil {
				return nil, err
			}
		}
		// Sarama's numbers for the start and the end are Kafka's.
		stream, err := source.ConsumePartition(r.Topic, partition, at)
		if err != nil {
			return nil, err
		}
		go func() {
			for message := range stream.Messages() {
				select {
				case made.messages <- message:
				case <-done:
				}
			}
		}()
	}
	current = made
	return nil, nil
}

func subscribe(r request) (answer, error) {
	shut(request{})
	made := config()
	made.Consumer.Group.Session.Timeout = time.Duration(r.SessionMs) * time.Millisecond
	made.Consumer.Group.Heartbeat.Interval = time.Duration(r.SessionMs/6) * time.Millisecond
	made.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyRange()}
	if r.Strategy == "cooperative" {
		made.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	}
	if r.Instance != nil {
		made.Consumer.Group.InstanceId = *r.Instance
	}
	group, err := sarama.NewConsumerGroup(bootstrap, r.Group, made)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	member := &consumer{messages: make(chan *sarama.ConsumerMessage), topic: r.Topic}
	member.end = func() error {
		cancel()
		<-ended
		return group.Close()
	}
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{r.Topic}, member); err != nil {
				member.mutex.Lock()
				member.failed = err
				member.mutex.Unlock()
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	current = member
	return nil, nil
}

func (c *consumer) Setup(session sarama.ConsumerGroupSession) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.session, c.failed = session, nil
	return nil
}

func (c *consumer) Cleanup(sarama.ConsumerGroupSession) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.session = nil
	return nil
}

func (c *consumer) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	defer func() {
		c.mutex.Lock()
		defer c.mutex.Unlock()
		c.revoked = append(c.revoked, claim.Partition())
	}()
	for {
		select {
		case message, more := <-claim.Messages():
			if !more {
				return nil
			}
			select {
			case c.messages <- message:
			case <-session.Context().Done():
				return nil
			}
		case <-session.Context().Done():
			return nil
		}
	}
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
				headers = append(headers, adapter.Header{Name: string(header.Key), Value: header.Value})
			}
			records = append(records, adapter.Got(
				message.Partition, message.Offset, message.Timestamp.UnixMilli(), message.Key, message.Value, headers))
			current.mutex.Lock()
			if current.session != nil {
				current.session.MarkMessage(message, "")
			}
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
	assignment := append([]int32{}, current.plain...)
	if current.session != nil {
		assignment = append(assignment, current.session.Claims()[current.topic]...)
	}
	sort.Slice(assignment, func(a, b int) bool { return assignment[a] < assignment[b] })
	taken := append([]int32{}, current.revoked...)
	current.revoked = nil
	return answer{"records": records, "assignment": assignment, "revoked": taken}, current.failed
}

func commit(request) (answer, error) {
	current.mutex.Lock()
	defer current.mutex.Unlock()
	if current.session == nil {
		return nil, errors.New("no session to commit in")
	}
	current.session.Commit()
	return nil, nil
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
	on := func(name string, do func(sarama.ClusterAdmin, request) (answer, error)) {
		ops[name] = func(r request) (answer, error) {
			admin, err := sarama.NewClusterAdmin(bootstrap, config())
			if err != nil {
				return nil, err
			}
			defer admin.Close()
			return do(admin, r)
		}
	}
	on("metadata", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		client, err := sarama.NewClient(bootstrap, config())
		if err != nil {
			return nil, err
		}
		defer client.Close()
		names, err := client.Topics()
		topics := [][]any{}
		for _, name := range names {
			if strings.HasPrefix(name, r.Prefix) {
				partitions, err := client.Partitions(name)
				if err != nil {
					return nil, err
				}
				topics = append(topics, []any{name, len(partitions)})
			}
		}
		return answer{"topics": topics}, err
	})
	on("create_topic", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		return nil, admin.CreateTopic(r.Topic, &sarama.TopicDetail{
			NumPartitions: int32(r.PartitionCount()), ReplicationFactor: 1, ConfigEntries: pointers(r.Configs)}, false)
	})
	on("delete_topic", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		return nil, admin.DeleteTopic(r.Topic)
	})
	on("describe_cluster", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		found, controller, err := admin.DescribeCluster()
		brokers := [][]any{}
		for _, broker := range found {
			host, port, err := net.SplitHostPort(broker.Addr())
			if err != nil {
				return nil, err
			}
			number, _ := strconv.Atoi(port)
			brokers = append(brokers, []any{broker.ID(), host, number})
		}
		return answer{"cluster_id": nil, "controller": controller, "brokers": brokers}, err
	})
	on("describe_topic", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		found, err := admin.DescribeTopics([]string{r.Topic})
		if err != nil {
			return nil, err
		}
		if found[0].Err != sarama.ErrNoError {
			return nil, found[0].Err
		}
		partitions := [][]any{}
		for _, p := range found[0].Partitions {
			partitions = append(partitions, []any{p.ID, p.Leader, len(p.Replicas), len(p.Isr)})
		}
		return answer{"partitions": partitions}, nil
	})
	on("describe_configs", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		found, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: r.Topic})
		configs := map[string]string{}
		for _, config := range found {
			configs[config.Name] = config.Value
		}
		return answer{"configs": configs}, err
	})
	on("alter_configs", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		changes := map[string]sarama.IncrementalAlterConfigsEntry{}
		for name, value := range pointers(r.Configs) {
			changes[name] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: value}
		}
		return nil, admin.IncrementalAlterConfig(sarama.TopicResource, r.Topic, changes, false)
	})
	on("create_partitions", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		return nil, admin.CreatePartitions(r.Topic, int32(r.Count), nil, false)
	})
	on("list_offsets", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		asked := map[int32]int64{}
		for _, partition := range r.PartitionList() {
			asked[partition] = adapter.Place(r.At)
		}
		found, err := admin.ListOffsets(map[string]map[int32]int64{r.Topic: asked}, nil)
		offsets := [][2]int64{}
		for partition, place := range found[r.Topic] {
			if place.Err != nil && place.Err != sarama.ErrNoError {
				return nil, place.Err
			}
			offsets = append(offsets, [2]int64{int64(partition), place.Offset})
		}
		return answer{"offsets": offsets}, err
	})
	on("delete_records", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		return answer{"low": nil}, admin.DeleteRecords(r.Topic, map[int32]int64{r.Partition: r.Before})
	})
	on("list_groups", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		found, err := admin.ListConsumerGroups()
		groups := []string{}
		for group := range found {
			groups = append(groups, group)
		}
		return answer{"groups": groups}, err
	})
	on("describe_group", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		found, err := admin.DescribeConsumerGroups([]string{r.Group})
		if err != nil {
			return nil, err
		}
		return answer{"state": found[0].State, "members": len(found[0].Members)}, nil
	})
	on("group_offsets", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		found, err := admin.ListConsumerGroupOffsets(r.Group, nil)
		if err != nil {
			return nil, err
		}
		offsets := [][]any{}
		for topic, partitions := range found.Blocks {
			for partition, block := range partitions {
				offsets = append(offsets, []any{topic, partition, block.Offset})
			}
		}
		return answer{"offsets": offsets}, nil
	})
	on("delete_group", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		return nil, admin.DeleteConsumerGroup(r.Group)
	})
	on("log_dirs", func(admin sarama.ClusterAdmin, r request) (answer, error) {
		brokers, _, err := admin.DescribeCluster()
		if err != nil {
			return nil, err
		}
		ids := []int32{}
		for _, broker := range brokers {
			ids = append(ids, broker.ID())
		}
		found, err := admin.DescribeLogDirs(ids)
		size := int64(0)
		for _, dirs := range found {
			for _, dir := range dirs {
				for _, topic := range dir.Topics {
					for _, partition := range topic.Partitions {
						if topic.Topic == r.Topic {
							size += partition.Size
						}
					}
				}
			}
		}
		return answer{"size": size}, err
	})
}

func pointers(texts map[string]string) map[string]*string {
	made := map[string]*string{}
	for name, value := range texts {
		made[name] = &value
	}
	return made
}

func main() {
	bootstrap = []string{os.Args[1]}
	ops := adapter.Ops{
		"hello": hello, "produce": produce, "transaction": transaction, "assign": assign, "subscribe": subscribe, "poll": poll, "commit": commit, "close": shut,
	}
	administer(ops)
	adapter.Serve(ops, func(err error) int {
		var failed sarama.ProducerErrors
		if errors.As(err, &failed) && len(failed) > 0 {
			err = failed[0].Err
		}
		var broker sarama.KError
		if errors.As(err, &broker) {
			return int(broker)
		}
		return 0
	})
}
