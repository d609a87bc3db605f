// Writes the golden topics with sarama, franz-go and kafka-go: go run . ADDRESS records.json
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

const largeBytes = 70_000

type record struct {
	Timestamp int64        `json:"timestamp"`
	Key       *string      `json:"key"`
	Value     *string      `json:"value"`
	Headers   [][2]*string `json:"headers"`
}

func main() {
	address := os.Args[1]
	text, err := os.ReadFile(os.Args[2])
	check(err)
	var records []record
	check(json.Unmarshal(text, &records))
	for codec, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		for topic, records := range map[string][]record{name: records, name + "-large": large()} {
			if topic == "none-large" {
				continue
			}
			sendSarama(address, sarama.CompressionCodec(codec), client("sarama", "github.com/IBM/sarama")+"."+topic, records)
			sendFranz(address, codec, client("franz-go", "github.com/twmb/franz-go")+"."+topic, records)
			sendSegmentio(address, kafka.Compression(codec), client("kafka-go", "github.com/segmentio/kafka-go")+"."+topic, records)
		}
	}
}

func sendSarama(address string, codec sarama.CompressionCodec, topic string, records []record) {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Producer.Compression = codec
	config.Producer.Return.Successes = true
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Flush.Frequency = time.Second
	producer, err := sarama.NewSyncProducer([]string{address}, config)
	check(err)
	var messages []*sarama.ProducerMessage
	for _, r := range records {
		message := &sarama.ProducerMessage{Topic: topic, Timestamp: time.UnixMilli(r.Timestamp)}
		if r.Key != nil {
			message.Key = sarama.StringEncoder(*r.Key)
		}
		if r.Value != nil {
			message.Value = sarama.StringEncoder(*r.Value)
		}
		for _, h := range r.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(*h[0]), Value: encoded(h[1])})
		}
		messages = append(messages, message)
	}
	check(producer.SendMessages(messages))
	check(producer.Close())
}

func sendFranz(address string, codec int, topic string, records []record) {
	codecs := []kgo.CompressionCodec{
		kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
	}
	producer, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchCompression(codecs[codec]), kgo.ProducerLinger(time.Second), kgo.DisableIdempotentWrite())
	check(err)
	var messages []*kgo.Record
	for _, r := range records {
		message := &kgo.Record{Topic: topic, Timestamp: time.UnixMilli(r.Timestamp), Key: encoded(r.Key), Value: encoded(r.Value)}
		for _, h := range r.Headers {
			message.Headers = append(message.Headers, kgo.RecordHeader{Key: *h[0], Value: encoded(h[1])})
		}
		messages = append(messages, message)
	}
	check(producer.ProduceSync(context.Background(), messages...).FirstErr())
	producer.Close()
}

func sendSegmentio(address string, codec kafka.Compression, topic string, records []record) {
	producer := &kafka.Writer{Addr: kafka.TCP(address), Topic: topic, Compression: codec, BatchTimeout: time.Second, RequiredAcks: kafka.RequireAll, AllowAutoTopicCreation: true}
	var messages []kafka.Message
	for _, r := range records {
		message := kafka.Message{Time: time.UnixMilli(r.Timestamp), Key: encoded(r.Key), Value: encoded(r.Value)}
		for _, h := range r.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: *h[0], Value: encoded(h[1])})
		}
		messages = append(messages, message)
	}
	// This client keeps metadata that knows nothing of a new topic for some seconds.
	err := producer.WriteMessages(context.Background(), messages...)
	for attempt := 0; errors.Is(err, kafka.UnknownTopicOrPartition) && attempt < 20; attempt++ {
		time.Sleep(time.Second)
		err = producer.WriteMessages(context.Background(), messages...)
	}
	check(err)
	check(producer.Close())
}

// One value that spans the blocks of every codec.
func large() []record {
	var value strings.Builder
	for line := 0; value.Len() < largeBytes; line++ {
		fmt.Fprintf(&value, "line %d of a value that spans blocks\n", line)
	}
	key, text := "large", value.String()[:largeBytes]
	return []record{{Timestamp: 1_700_000_000_000, Key: &key, Value: &text}}
}

func encoded(text *string) []byte {
	if text == nil {
		return nil
	}
	return []byte(*text)
}

func client(name, module string) string {
	build, _ := debug.ReadBuildInfo()
	for _, dependency := range build.Deps {
		if dependency.Path == module {
			return name + "-" + strings.TrimPrefix(dependency.Version, "v")
		}
	}
	panic(module + " is not among the build's modules")
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
