// Writes the reference topics with Kafka's own clients, and prints each record that the broker took as one line of JSON.
// Usage: java -cp 'lib/*' ReferenceWriter.java BOOTSTRAP all|more
//   all   creates the topics and fills them
//   more  appends to some of them, after a restart of the broker

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class ReferenceWriter {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    private static final long FIRST_TIMESTAMP_MS = 1_700_000_000_000L;

    private final String bootstrap;

    private ReferenceWriter(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    public static void main(String[] args) throws Exception {
        ReferenceWriter writer = new ReferenceWriter(args[0]);
        switch (args[1]) {
            case "all" -> writer.writeAll();
            case "more" -> writer.writeMore();
            default -> throw new IllegalArgumentException("unknown part: " + args[1]);
        }
    }

    private void writeAll() throws Exception {
        createTopics();
        for (String codec : CODECS) {
            plain("codec-" + codec, Map.of("compression.type", codec, "enable.idempotence", "false"), 300);
        }
        plain("recompressed", Map.of("compression.type", "gzip"), 100);
        plain("append-time", Map.of("compression.type", "lz4"), 100);
        plain("rolled", Map.of("compression.type", "none", "batch.size", "600"), 2000);
        headers();
        edgeValues();
        idempotent();
        transactional("tx", "transactional");
        compacted();
        groupOffsets();
    }

    private void writeMore() throws Exception {
        plain("codec-none", Map.of("compression.type", "none", "enable.idempotence", "false"), 50);
        plain("rolled", Map.of("compression.type", "zstd", "batch.size", "600"), 500);
        transactional("tx-more", "transactional");
    }

    private void createTopics() throws Exception {
        List<NewTopic> topics = new ArrayList<>();
        for (String codec : CODECS) {
            topics.add(topic("codec-" + codec, Map.of()));
        }
        topics.add(topic("recompressed", Map.of("compression.type", "zstd")));
        topics.add(topic("append-time", Map.of("message.timestamp.type", "LogAppendTime")));
        topics.add(topic("rolled", Map.of("internal.segment.bytes", "16384", "index.interval.bytes", "512")));
        topics.add(topic("headers", Map.of()));
        topics.add(topic("edge-values", Map.of()));
        topics.add(topic("idempotent", Map.of()));
        topics.add(topic("transactional", Map.of("internal.segment.bytes", "8192")));
        topics.add(topic("compacted", Map.of(
            "cleanup.policy", "compact",
            "internal.segment.bytes", "8192",
            "min.cleanable.dirty.ratio", "0.01",
            "min.compaction.lag.ms", "0",
            "index.interval.bytes", "256")));
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            admin.createTopics(topics).all().get();
        }
    }

    private static NewTopic topic(String name, Map<String, String> config) {
        return new NewTopic(name, 1, (short) 1).configs(config);
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>();
        all.put("bootstrap.servers", bootstrap);
        all.put("acks", "all");
        all.put("linger.ms", "5");
        all.put("batch.size", "4096");
        all.putAll(settings);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** Records with rising timestamps and text that shrinks well. */
    private void plain(String topic, Map<String, Object> settings, int count) throws Exception {
        try (var producer = producer(settings)) {
            Sent sent = new Sent(null);
            for (int i = 0; i < count; i++) {
                sent.send(producer, record(topic, i, "key-" + i % 37, "value " + i + " of " + topic + " " + "ab".repeat(i % 50)));
            }
            sent.print();
        }
    }

    private void headers() throws Exception {
        try (var producer = producer(Map.of("compression.type", "snappy"))) {
            Sent sent = new Sent(null);
            for (int i = 0; i < 50; i++) {
                List<Header> headers = new ArrayList<>();
                for (int h = 0; h < i % 5; h++) {
                    headers.add(new RecordHeader("name-" + h % 2, h == 3 ? null : bytes("header " + h)));
                }
                headers.add(new RecordHeader("", new byte[0]));
                sent.send(producer, new ProducerRecord<>("headers", 0, FIRST_TIMESTAMP_MS + i, bytes("k" + i), bytes("v" + i), headers));
            }
            sent.print();
        }
    }

    /** Null and empty keys and values, one large value, equal and falling timestamps. */
    private void edgeValues() throws Exception {
        try (var producer = producer(Map.of("compression.type", "lz4"))) {
            Sent sent = new Sent(null);
            byte[][] edges = {null, new byte[0], bytes("text"), bytes("x".repeat(100_000))};
            int i = 0;
            for (byte[] key : new byte[][] {null, new byte[0], bytes("k")}) {
                for (byte[] value : edges) {
                    long timestamp = FIRST_TIMESTAMP_MS - 1000L * (i / 2);
                    sent.send(producer, new ProducerRecord<>("edge-values", 0, timestamp, key, value));
                    i++;
                }
            }
            sent.print();
        }
    }

    private void idempotent() throws Exception {
        Map<String, Object> settings = Map.of("enable.idempotence", "true", "batch.size", "300", "linger.ms", "0");
        try (var one = producer(settings); var two = producer(settings)) {
            Sent sent = new Sent(null);
            for (int i = 0; i < 200; i++) {
                sent.send(i % 3 == 0 ? one : two, record("idempotent", i, "key-" + i, "value " + i));
            }
            sent.print();
        }
    }

    /** Two transactional producers in turn, some of whose transactions abort, with plain records in between. */
    private void transactional(String idPrefix, String topic) throws Exception {
        try (var one = producer(Map.of("transactional.id", idPrefix + "-1", "compression.type", "zstd"));
             var two = producer(Map.of("transactional.id", idPrefix + "-2"));
             var outside = producer(Map.of("enable.idempotence", "false"))) {
            one.initTransactions();
            two.initTransactions();
            for (int round = 0; round < 10; round++) {
                one.beginTransaction();
                two.beginTransaction();
                boolean firstAborts = round % 3 == 1;
                boolean secondAborts = round % 4 == 2;
                Sent first = new Sent(firstAborts ? "aborted" : "committed");
                Sent second = new Sent(secondAborts ? "aborted" : "committed");
                Sent plain = new Sent(null);
                for (int i = 0; i < 20; i++) {
                    int n = round * 20 + i;
                    first.send(one, record(topic, n, "one-" + n, "round " + round));
                    second.send(two, record(topic, n, "two-" + n, "round " + round));
                    if (i % 7 == 0) {
                        plain.send(outside, record(topic, n, "outside-" + n, "round " + round));
                    }
                }
                one.flush();
                two.flush();
                first.print();
                second.print();
                plain.print();
                end(two, secondAborts);
                end(one, firstAborts);
            }
        }
    }

    private static void end(KafkaProducer<byte[], byte[]> producer, boolean abort) {
        if (abort) {
            producer.abortTransaction();
        } else {
            producer.commitTransaction();
        }
    }

    /** Keys written again and again by producers that outlive their records, tombstones, and transaction markers. */
    private void compacted() throws Exception {
        try (var one = producer(Map.of("compression.type", "lz4"))) {
            Sent sent = new Sent(null);
            for (int i = 0; i < 300; i++) {
                byte[] value = i % 11 == 5 ? null : bytes("first " + i + " " + "cd".repeat(20));
                sent.send(one, new ProducerRecord<>("compacted", 0, FIRST_TIMESTAMP_MS + i, bytes("key-" + i % 40), value));
            }
            sent.print();
        }
        try (var two = producer(Map.of("transactional.id", "tx-compacted"))) {
            two.initTransactions();
            for (int round = 0; round < 20; round++) {
                boolean aborts = round % 5 == 4;
                two.beginTransaction();
                Sent sent = new Sent(aborts ? "aborted" : "committed");
                for (int i = 0; i < 20; i++) {
                    int n = round * 20 + i;
                    byte[] value = n % 40 == 7 ? null : bytes("second " + n + " " + "ef".repeat(30));
                    sent.send(two, new ProducerRecord<>("compacted", 0, FIRST_TIMESTAMP_MS + 300 + n, bytes("key-" + n % 40), value));
                }
                two.flush();
                sent.print();
                end(two, aborts);
            }
        }
    }

    /** A group that reads and commits its offsets again and again, at last in transactions, one of which aborts. Prints nothing. */
    private void groupOffsets() {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", bootstrap,
            "group.id", "reference-group",
            "auto.offset.reset", "earliest",
            "enable.auto.commit", "false",
            "max.poll.records", "40");
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, bytes, bytes);
             var producer = producer(Map.of("transactional.id", "tx-offsets"))) {
            consumer.subscribe(List.of("codec-none"));
            for (int commits = 0; commits < 5; ) {
                if (!consumer.poll(Duration.ofMillis(500)).isEmpty()) {
                    consumer.commitSync();
                    commits++;
                }
            }
            producer.initTransactions();
            for (int round = 0; round < 3; round++) {
                producer.beginTransaction();
                var offsets = Map.of(new TopicPartition("codec-none", 0), new OffsetAndMetadata(round));
                producer.sendOffsetsToTransaction(offsets, consumer.groupMetadata());
                end(producer, round == 1);
            }
        }
    }

    private static ProducerRecord<byte[], byte[]> record(String topic, int i, String key, String value) {
        return new ProducerRecord<>(topic, 0, FIRST_TIMESTAMP_MS + i, bytes(key), bytes(value));
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** Records on their way, printed once the broker has said where they stand. */
    private static final class Sent {
        private final String transaction;
        private final List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        private final List<Future<RecordMetadata>> places = new ArrayList<>();

        Sent(String transaction) {
            this.transaction = transaction;
        }

        void send(KafkaProducer<byte[], byte[]> producer, ProducerRecord<byte[], byte[]> record) {
            records.add(record);
            places.add(producer.send(record));
        }

        void print() throws Exception {
            StringBuilder lines = new StringBuilder();
            for (int i = 0; i < records.size(); i++) {
                appendLine(lines, records.get(i), places.get(i).get());
            }
            System.out.print(lines);
        }

        private void appendLine(StringBuilder out, ProducerRecord<byte[], byte[]> record, RecordMetadata place) {
            out.append("{\"topic\":\"").append(record.topic()).append("\",\"partition\":").append(place.partition());
            out.append(",\"offset\":").append(place.offset()).append(",\"timestamp_ms\":").append(place.timestamp());
            out.append(",\"key_hex\":").append(hex(record.key())).append(",\"value_hex\":").append(hex(record.value()));
            out.append(",\"headers\":[");
            String comma = "";
            for (Header header : record.headers()) {
                out.append(comma).append("{\"name\":\"").append(header.key()).append("\",\"value_hex\":").append(hex(header.value())).append('}');
                comma = ",";
            }
            String outcome = transaction == null ? "null" : "\"" + transaction + "\"";
            out.append("],\"transaction\":").append(outcome).append("}\n");
        }

        private static String hex(byte[] bytes) {
            return bytes == null ? "null" : "\"" + HexFormat.of().formatHex(bytes) + "\"";
        }
    }
}
