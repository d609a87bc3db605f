// Writes the golden topics with the Java client, then reads every golden topic back as JSON lines.
//
//   java -cp 'LIB/*' Produce.java produce ADDRESS records.json
//   java -cp 'LIB/*' Produce.java dump ADDRESS > dump.jsonl

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.File;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.zip.CRC32C;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.AppInfoParser;

public class Produce {
    static final ObjectMapper JSON = new ObjectMapper();
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final int LARGE_BYTES = 70_000;

    public static void main(String[] args) throws Exception {
        if (args[0].equals("dump")) {
            dump(args[1]);
        } else {
            produce(args[1], JSON.readTree(new File(args[2])));
        }
    }

    static void produce(String address, JsonNode records) throws Exception {
        String client = "kafka-java-" + AppInfoParser.getVersion();
        for (String codec : CODECS) {
            send(address, client + "." + codec, Map.of("compression.type", codec, "enable.idempotence", "false"), records);
            if (!codec.equals("none")) {
                send(address, client + "." + codec + "-large", Map.of("compression.type", codec, "enable.idempotence", "false"), large());
            }
        }
        send(address, client + ".idempotent", Map.of("enable.idempotence", "true"), records);
        try (Admin admin = admin(address)) {
            admin.createTopics(List.of(
                new NewTopic(client + ".log-append-time", 1, (short) 1).configs(Map.of("message.timestamp.type", "LogAppendTime")),
                new NewTopic(client + ".compacted", 1, (short) 1).configs(Map.of(
                    "cleanup.policy", "compact", "segment.ms", "500", "min.cleanable.dirty.ratio", "0.001",
                    "delete.retention.ms", "3600000")))).all().get();
        }
        send(address, client + ".log-append-time", Map.of("compression.type", "lz4"), records);
        transactions(address, client + ".transactional", records);
        compacted(address, client + ".compacted");
    }

    static void send(String address, String topic, Map<String, Object> settings, JsonNode records) throws Exception {
        try (Producer<byte[], byte[]> producer = producer(address, settings)) {
            for (JsonNode record : records) producer.send(record(topic, record));
            producer.flush();
        }
    }

    static void transactions(String address, String topic, JsonNode records) throws Exception {
        try (Producer<byte[], byte[]> producer = producer(address, Map.of("transactional.id", "golden"))) {
            producer.initTransactions();
            for (boolean commit : new boolean[] {true, false, true}) {
                producer.beginTransaction();
                for (JsonNode record : records) producer.send(record(topic, record));
                producer.flush();
                if (commit) producer.commitTransaction(); else producer.abortTransaction();
            }
        }
    }

    /**
     * Batches that lose some records, all records and none, with tombstones among them; then time for the cleaner. The
     * first producer's only batch loses every record and is kept empty, for the producer's sequence.
     */
    static void compacted(String address, String topic) throws Exception {
        try (Producer<byte[], byte[]> producer = producer(address, Map.of("compression.type", "gzip"))) {
            for (String key : new String[] {"a", "b"}) {
                producer.send(new ProducerRecord<>(topic, 0, 1_699_999_999_999L, key.getBytes(), "lost".getBytes()));
            }
        }
        try (Producer<byte[], byte[]> producer = producer(address, Map.of("compression.type", "zstd"))) {
            String[][] batches = {{"a", "b", "c", "d"}, {"a", "c"}, {"-a", "e", "f"}, {"b", "g"}, {"b"}};
            long timestamp = 1_700_000_000_000L;
            for (String[] batch : batches) {
                for (String key : batch) {
                    boolean tombstone = key.startsWith("-");
                    byte[] value = tombstone ? null : ("value of " + key).getBytes(StandardCharsets.UTF_8);
                    byte[] name = key.substring(tombstone ? 1 : 0).getBytes(StandardCharsets.UTF_8);
                    producer.send(new ProducerRecord<>(topic, 0, timestamp++, name, value));
                }
                producer.flush();
            }
            // The active segment is never cleaned: one more record rolls it.
            for (int roll = 0; roll < 2; roll++) {
                Thread.sleep(1_500);
                producer.send(new ProducerRecord<>(topic, 0, 1_700_000_100_000L + roll * 10_000, "last".getBytes(), "x".getBytes())).get();
            }
            Thread.sleep(20_000);
        }
    }

    static ProducerRecord<byte[], byte[]> record(String topic, JsonNode record) {
        List<Header> headers = new ArrayList<>();
        for (JsonNode header : record.get("headers")) headers.add(new RecordHeader(header.get(0).asText(), bytes(header.get(1))));
        return new ProducerRecord<>(topic, 0, record.get("timestamp").asLong(), bytes(record.get("key")), bytes(record.get("value")), headers);
    }

    /** One value that spans the blocks of every codec. */
    static JsonNode large() {
        StringBuilder value = new StringBuilder();
        for (int line = 0; value.length() < LARGE_BYTES; line++) value.append("line ").append(line).append(" of a value that spans blocks\n");
        value.setLength(LARGE_BYTES);
        ObjectNode record = JSON.createObjectNode().put("timestamp", 1_700_000_000_000L).put("key", "large").put("value", value.toString());
        record.putArray("headers");
        return JSON.createArrayNode().add(record);
    }

    static byte[] bytes(JsonNode text) {
        return text.isNull() ? null : text.asText().getBytes(StandardCharsets.UTF_8);
    }

    static Producer<byte[], byte[]> producer(String address, Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(settings);
        all.put("bootstrap.servers", address);
        all.put("linger.ms", "2000");
        all.put("batch.size", "500000");
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static Admin admin(String address) {
        return Admin.create(Map.of("bootstrap.servers", address));
    }

    static void dump(String address) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", address, "isolation.level", "read_uncommitted");
        try (Admin admin = admin(address);
             Consumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            for (String topic : new TreeSet<>(admin.listTopics().names().get())) {
                TopicPartition partition = new TopicPartition(topic, 0);
                consumer.assign(List.of(partition));
                consumer.seekToBeginning(List.of(partition));
                long end = consumer.endOffsets(List.of(partition)).get(partition);
                ObjectNode line = JSON.createObjectNode().put("topic", topic).put("end", end);
                ArrayNode records = line.putArray("records");
                while (consumer.position(partition) < end) {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) records.add(told(record));
                }
                System.out.println(line);
            }
        }
    }

    static ObjectNode told(ConsumerRecord<byte[], byte[]> record) {
        ObjectNode node = JSON.createObjectNode().put("offset", record.offset()).put("timestamp", record.timestamp());
        node.set("key", told(record.key()));
        node.set("value", told(record.value()));
        ArrayNode headers = node.putArray("headers");
        for (Header header : record.headers()) {
            headers.addArray().add(told(header.key().getBytes(StandardCharsets.UTF_8))).add(told(header.value()));
        }
        return node;
    }

    /** Null, hex, or length and CRC-32C of what is too long to be told. */
    static JsonNode told(byte[] bytes) {
        if (bytes == null) return JSON.nullNode();
        if (bytes.length <= 1024) return JSON.getNodeFactory().textNode(HexFormat.of().formatHex(bytes));
        CRC32C crc = new CRC32C();
        crc.update(bytes);
        return JSON.createObjectNode().put("bytes", bytes.length).put("crc32c", crc.getValue());
    }
}
