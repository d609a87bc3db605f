// franz-go, with kadm for administration.
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

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const wait = 30 * time.Second

type request = adapter.Request
type answer = adapter.Answer

var bootstrap string

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// What a rebalance changes, from the client's own goroutines.
var (
	mutex    sync.Mutex
	consumer *kgo.Client
	held     map[int32]bool
	revoked  []int32
)

func within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), wait)
}

func hello(request) (answer, error) {
	version := "?"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/twmb/franz-go" {
				version = dep.Version
			}
		}
	}
	return answer{"version": version, "codecs": adapter.Codecs, "lacks": []string{}}, nil
}

func produce(r request) (answer, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap), kgo.ProducerBatchCompression(codecs[r.Codec]), kgo.ProducerBatchMaxBytes(20_000_000),
		kgo.RecordPartitioner(partitioner{kgo.StickyKeyPartitioner(nil)}),
	}
	switch r.Acks {
	case "0":
		options = append(options, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	case "1":
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	default:
		if !r.Idempotent {
			options = append(options, kgo.DisableIdempotentWrite())
		}
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	records := make([]*kgo.Record, len(r.Records))
	for n, record := range r.Records {
		made := &kgo.Record{Topic: r.Topic, Key: record.Key, Value: record.Value, Partition: -1}
		for _, header := range record.Headers {
			made.Headers = append(made.Headers, kgo.RecordHeader{Key: header.Name, Value: header.Value})
		}
		if record.Timestamp != nil {
			made.Timestamp = time.UnixMilli(*record.Timestamp)
		}
		if record.Partition != nil {
			made.Partition = *record.Partition
		}
		records[n] = made
	}
	ctx, cancel := within()
	defer cancel()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return nil, err
	}
	offsets := make([][2]int64, len(records))
	for n, record := range records {
		offsets[n] = [2]int64{int64(record.Partition), record.Offset}
	}
	return answer{"offsets": offsets}, nil
}

func transaction(r request) (answer, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.TransactionalID(r.TransactionalID))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := within()
	defer cancel()
	if err := client.BeginTransaction(); err != nil {
		return nil, err
	}
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: r.Topic, Value: []byte("in a transaction")}).FirstErr(); err != nil {
		return nil, err
	}
	return nil, client.EndTransaction(ctx, kgo.TryCommit)
}

// The record's own partition where it has one, the client's choice otherwise.
type partitioner struct{ other kgo.Partitioner }

func (p partitioner) ForTopic(topic string) kgo.TopicPartitioner {
	return topicPartitioner{p.other.ForTopic(topic)}
}

type topicPartitioner struct{ kgo.TopicPartitioner }

func (p topicPartitioner) Partition(record *kgo.Record, count int) int {
	if record.Partition >= 0 {
		return int(record.Partition)
	}
	return p.TopicPartitioner.Partition(record, count)
}

func open(options ...kgo.Opt) error {
	shut(request{})
	mutex.Lock()
	held, revoked = map[int32]bool{}, nil
	mutex.Unlock()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(bootstrap))...)
	consumer = client
	return err
}

func assign(r request) (answer, error) {
	at := kgo.NewOffset()
	switch place := adapter.Place(r.Start); place {
	case -2:
		at = at.AtStart()
	case -1:
		at = at.AtEnd()
	default:
		at = at.AfterMilli(place)
	}
	places := map[int32]kgo.Offset{}
	for _, partition := range r.PartitionList() {
		places[partition] = at
	}
	if err := open(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.Topic: places})); err != nil {
		return nil, err
	}
	for partition := range places {
		held[partition] = true
	}
	return nil, nil
}

func subscribe(r request) (answer, error) {
	balancer := kgo.RangeBalancer()
	if r.Strategy == "cooperative" {
		balancer = kgo.CooperativeStickyBalancer()
	}
	taken := func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		mutex.Lock()
		defer mutex.Unlock()
		for _, partition := range partitions[r.Topic] {
			delete(held, partition)
			revoked = append(revoked, partition)
		}
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(r.Group), kgo.ConsumeTopics(r.Topic), kgo.Balancers(balancer), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(time.Duration(r.SessionMs) * time.Millisecond),
		kgo.HeartbeatInterval(time.Duration(r.SessionMs/6) * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			mutex.Lock()
			defer mutex.Unlock()
			for _, partition := range partitions[r.Topic] {
				held[partition] = true
			}
		}),
		kgo.OnPartitionsRevoked(taken), kgo.OnPartitionsLost(taken),
	}
	if r.Instance != nil {
		options = append(options, kgo.InstanceID(*r.Instance))
	}
	return nil, open(options...)
}

func poll(r request) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.Ms)*time.Millisecond)
	defer cancel()
	fetches := consumer.PollFetches(ctx)
	if err := fetches.Err0(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	records := [][]any{}
	fetches.EachRecord(func(record *kgo.Record) {
		headers := []adapter.Header{}
		for _, header := range record.Headers {
			headers = append(headers, adapter.Header{Name: header.Key, Value: header.Value})
		}
		records = append(records, adapter.Got(record.Partition, record.Offset, record.Timestamp.UnixMilli(), record.Key, record.Value, headers))
	})
	mutex.Lock()
	defer mutex.Unlock()
	assignment := []int32{}
	for partition := range held {
		assignment = append(assignment, partition)
	}
	sort.Slice(assignment, func(a, b int) bool { return assignment[a] < assignment[b] })
	taken := append([]int32{}, revoked...)
	revoked = nil
	return answer{"records": records, "assignment": assignment, "revoked": taken}, nil
}

func commit(request) (answer, error) {
	ctx, cancel := within()
	defer cancel()
	return nil, consumer.CommitUncommittedOffsets(ctx)
}

func shut(request) (answer, error) {
	if consumer != nil {
		consumer.Close()
	}
	consumer = nil
	return nil, nil
}

var admin = sync.OnceValue(func() *kadm.Client {
	// Metadata is asked for anew each time, so that what was changed is seen.
	client, err := kgo.NewClient(kgo.SeedBrokers(bootstrap), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		panic(err)
	}
	return kadm.NewClient(client)
})

func administer(ops adapter.Ops) {
	on := func(name string, do func(context.Context, request) (answer, error)) {
		ops[name] = func(r request) (answer, error) {
			ctx, cancel := within()
			defer cancel()
			return do(ctx, r)
		}
	}
	on("metadata", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().ListTopics(ctx)
		topics := [][]any{}
		for _, topic := range found {
			if strings.HasPrefix(topic.Topic, r.Prefix) {
				topics = append(topics, []any{topic.Topic, len(topic.Partitions)})
			}
		}
		return answer{"topics": topics}, err
	})
	on("create_topic", func(ctx context.Context, r request) (answer, error) {
		configs := map[string]*string{}
		for name, value := range r.Configs {
			configs[name] = &value
		}
		_, err := admin().CreateTopic(ctx, int32(r.PartitionCount()), 1, configs, r.Topic)
		return nil, err
	})
	on("delete_topic", func(ctx context.Context, r request) (answer, error) {
		_, err := admin().DeleteTopic(ctx, r.Topic)
		return nil, err
	})
	on("describe_cluster", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().BrokerMetadata(ctx)
		brokers := [][]any{}
		for _, broker := range found.Brokers {
			brokers = append(brokers, []any{broker.NodeID, broker.Host, broker.Port})
		}
		return answer{"cluster_id": found.Cluster, "controller": found.Controller, "brokers": brokers}, err
	})
	on("describe_topic", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().ListTopics(ctx, r.Topic)
		if err == nil {
			err = found[r.Topic].Err
		}
		partitions := [][]any{}
		for _, p := range found[r.Topic].Partitions.Sorted() {
			partitions = append(partitions, []any{p.Partition, p.Leader, len(p.Replicas), len(p.ISR)})
		}
		return answer{"partitions": partitions}, err
	})
	on("describe_configs", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().DescribeTopicConfigs(ctx, r.Topic)
		if err != nil {
			return nil, err
		}
		configs := map[string]*string{}
		for _, config := range found[0].Configs {
			configs[config.Key] = config.Value
		}
		return answer{"configs": configs}, found[0].Err
	})
	on("alter_configs", func(ctx context.Context, r request) (answer, error) {
		changes := []kadm.AlterConfig{}
		for name, value := range r.Configs {
			changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
		}
		told, err := admin().AlterTopicConfigs(ctx, changes, r.Topic)
		if err == nil {
			err = told[0].Err
		}
		return nil, err
	})
	on("create_partitions", func(ctx context.Context, r request) (answer, error) {
		told, err := admin().UpdatePartitions(ctx, r.Count, r.Topic)
		if err == nil {
			err = told.Error()
		}
		return nil, err
	})
	on("list_offsets", func(ctx context.Context, r request) (answer, error) {
		found, err := listOffsets(ctx, r)
		offsets := [][2]int64{}
		for _, partition := range r.PartitionList() {
			place, _ := found.Lookup(r.Topic, partition)
			offsets = append(offsets, [2]int64{int64(partition), place.Offset})
		}
		if err == nil {
			err = found.Error()
		}
		return answer{"offsets": offsets}, err
	})
	on("delete_records", func(ctx context.Context, r request) (answer, error) {
		offsets := kadm.Offsets{}
		offsets.AddOffset(r.Topic, r.Partition, r.Before, -1)
		told, err := admin().DeleteRecords(ctx, offsets)
		if err == nil {
			err = told.Error()
		}
		one, _ := told.Lookup(r.Topic, r.Partition)
		return answer{"low": one.LowWatermark}, err
	})
	on("list_groups", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().ListGroups(ctx)
		return answer{"groups": found.Groups()}, err
	})
	on("describe_group", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().DescribeGroups(ctx, r.Group)
		if err == nil {
			err = found[r.Group].Err
		}
		return answer{"state": found[r.Group].State, "members": len(found[r.Group].Members)}, err
	})
	on("group_offsets", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().FetchOffsets(ctx, r.Group)
		offsets := [][]any{}
		for _, place := range found.Offsets().Sorted() {
			offsets = append(offsets, []any{place.Topic, place.Partition, place.At})
		}
		return answer{"offsets": offsets}, err
	})
	on("delete_group", func(ctx context.Context, r request) (answer, error) {
		_, err := admin().DeleteGroup(ctx, r.Group)
		return nil, err
	})
	on("log_dirs", func(ctx context.Context, r request) (answer, error) {
		found, err := admin().DescribeAllLogDirs(ctx, nil)
		size := int64(0)
		found.Each(func(dir kadm.DescribedLogDir) {
			for _, partition := range dir.Topics[r.Topic] {
				size += partition.Size
			}
		})
		return answer{"size": size}, err
	})
}

func listOffsets(ctx context.Context, r request) (kadm.ListedOffsets, error) {
	switch at := adapter.Place(r.At); at {
	case -2:
		return admin().ListStartOffsets(ctx, r.Topic)
	case -1:
		return admin().ListEndOffsets(ctx, r.Topic)
	default:
		return admin().ListOffsetsAfterMilli(ctx, at, r.Topic)
	}
}

func main() {
	bootstrap = os.Args[1]
	ops := adapter.Ops{
		"hello": hello, "produce": produce, "transaction": transaction, "assign": assign, "subscribe": subscribe, "poll": poll, "commit": commit, "close": shut,
	}
	administer(ops)
	adapter.Serve(ops, func(err error) int {
		var broker *kerr.Error
		if errors.As(err, &broker) {
			return int(broker.Code)
		}
		return 0
	})
}
